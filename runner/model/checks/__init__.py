"""What headers, configs and ``model_index.json`` tell before anything is loaded. No torch here."""
