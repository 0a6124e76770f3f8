//! What must happen: pure state machines, with `now` as an argument and no I/O.
