//! Faults 99 to 110: whoever connects to the daemon.
