//! The HTTP API. Owns routes, authentication, the envelope and the error codes.
