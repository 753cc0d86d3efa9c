"""The pages of the server in a headless Chromium: `make test-browser`."""
