//! Has the linker put what a daemon passes through beside one another.
//!
//! The system maps a program in pieces of 64 KiB, each as soon as something in it is needed. What is needed is a third of this program
//! and lies scattered over all of it, so that all of it would be in memory. `resident.ld` names it; `trace` beside it makes that file.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=link/resident.ld");
    let is = |name, value| env::var(name).is_ok_and(|found| found == value);
    // The GNU linker and LLVM's, the compiler's own, know such a file. Of one that somebody has chosen it cannot be known.
    let chosen = env::var_os("RUSTC_LINKER").is_some()
        || env::var("CARGO_ENCODED_RUSTFLAGS").is_ok_and(|flags| flags.contains("fuse-ld"));
    if is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux") && !chosen {
        let folder = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-arg-bin=refwatch=-T{folder}/link/resident.ld");
    }
}
