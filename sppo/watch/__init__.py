"""What a person should look at in a run that goes on, judged by its figures (docs/watch.md)."""
