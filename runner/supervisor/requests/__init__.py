"""What child processes find out or write before stages run: checks, activations, prepared components."""
