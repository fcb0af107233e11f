"""HTTP ↔ gRPC by descriptors: routes, request readers and reply writers are compiled once from the protos."""
