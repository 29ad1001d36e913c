//! A thread of a running process that stands still, as under a debugger that takes one thread alone. Owns the helper that holds it.
//!
//! Invariant: the thread goes on when the value is dropped.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// Stops one thread, and lets it go on when the helper's standard input is closed.
const HOLD_A_THREAD: &str = "
import ctypes, sys
ptrace = ctypes.CDLL(None, use_errno=True).ptrace
ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
for request in (0x4206, 0x4207):  # PTRACE_SEIZE, PTRACE_INTERRUPT
    if ptrace(request, int(sys.argv[1]), None, None) != 0:
        print('refused', ctypes.get_errno(), flush=True)
        sys.exit()
print('held', flush=True)
sys.stdin.read()
";

/// See the module.
pub struct Held(Child);

impl Held {
    /// Stops the thread; what the helper said if it may not.
    pub fn hold(thread: u32) -> Result<Self, String> {
        let mut helper = Command::new("python3")
            .args(["-c", HOLD_A_THREAD, &thread.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(helper.stdout.take().unwrap()).read_line(&mut said).unwrap();
        match said.trim() {
            "held" => Ok(Self(helper)),
            refused => {
                helper.wait().unwrap();
                Err(format!("nobody may stop a thread of another process: {refused}"))
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _reaped = self.0.wait();
    }
}
