"""The gRPC edge: messages in, values to the engine, messages out. Nothing below this room knows of gRPC."""
