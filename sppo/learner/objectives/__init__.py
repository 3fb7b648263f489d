"""What the learner minimises: one module for each objective, all behind one interface (`base`)."""
