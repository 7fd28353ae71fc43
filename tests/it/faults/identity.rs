//! Faults 31 to 49: who the daemon is to AWS, and what it may.
