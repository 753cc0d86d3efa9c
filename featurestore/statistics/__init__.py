"""What the values of columns are like, and how far two columns are apart."""
