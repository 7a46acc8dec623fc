"""What runs where the model is served: the model's code, the server, a client."""
