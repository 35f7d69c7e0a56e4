//! Whatever people, judges, files, clocks and disks do, in whatever order: a rollback ends with weight 0
//! and a blocked version, and only its unblocking brings it back; what is durable stays.
//!
//! Each byte is one decision of the simulation of the control thread.
#![no_main]

use std::cell::OnceCell;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use switchback_admin::fuzz::Control;

thread_local! {
    static CONTROL: OnceCell<Control> = const { OnceCell::new() };
}

fuzz_target!(|input: &[u8]| {
    let memory = Path::new("/dev/shm");
    let directory = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    let directory = directory.expect("a directory");
    CONTROL.with(|control| control.get_or_init(Control::new).play(input, directory.path()));
});
