"""The one-machine stack, the `kehu` command line, and the local servers behind both."""
