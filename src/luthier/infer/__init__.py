"""Using a tuned model: engines that generate, conversations, predictions and their scores."""
