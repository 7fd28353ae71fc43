//! Faults 50 to 70: what the service says, and what it says that cannot be.
