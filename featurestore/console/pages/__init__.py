"""The pages, a module for each: a function that calls an operation of the store and gives a plain model, and its place in the console."""
