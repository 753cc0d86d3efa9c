"""Other people's clients, as they are published, against our server: `make test-platforms`."""
