"""The frame every process is bolted to: a closed list of modules (docs/adr/0003-chassis-list.md)."""
