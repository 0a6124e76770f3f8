//! The API server as Tiphys uses it.
