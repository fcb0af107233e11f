"""The commands of `kehu` that talk to a running stack."""
