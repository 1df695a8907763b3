"""The gRPC edge: validate, delegate, translate the error."""
