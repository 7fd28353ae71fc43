//! Faults 111 to 114: what must not be shown, and what must not act on whatever shows it.
