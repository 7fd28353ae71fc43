//! Faults 71 to 98: this machine: its disks, clocks, files and signals.
