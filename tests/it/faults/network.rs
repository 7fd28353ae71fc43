//! Faults 1 to 30: the network and HTTP, each caused over a real socket.
