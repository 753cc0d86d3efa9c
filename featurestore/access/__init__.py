"""Who may do what: API keys, JSON Web Tokens, scopes, and the one decision about a request."""
