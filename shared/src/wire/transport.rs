//! Dial and listen: TLS or plaintext below gRPC.
