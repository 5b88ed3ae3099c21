"""What is right, and how sure that is: tasks, metrics and statistics, free of models and files."""
