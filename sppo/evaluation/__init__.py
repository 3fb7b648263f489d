"""How good a model is: its answers, their accuracy, and how often they win against another's."""
