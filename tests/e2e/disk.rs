//! A disk of a test's own: an ext4 file system in a file, and its misfortunes. Needs root, loop devices and e2fsprogs.
//!
//! Invariant: it is unmounted when the value is dropped; nothing of the machine's own disks is touched.

use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Limits of devices, for all of the machine: a process need not be moved into a group.
const SLOW: &str = "/sys/fs/cgroup/blkio/blkio.throttle.write_bps_device";

pub struct Disk {
    dir: TempDir,
}

fn run(tool: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(tool).args(arguments).output().map_err(|e| format!("{tool}: {e}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("{tool} {arguments:?}: {}", text(&output.stderr))),
    }
}

impl Disk {
    /// A disk of so many MiB; none, with the reason printed, where there can be none.
    pub fn new(mib: u64) -> Option<Self> {
        let disk = Self { dir: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap() };
        match disk.make(mib) {
            Ok(()) => Some(disk),
            Err(reason) => {
                crate::skip::skip("a disk of the test's own", reason);
                None
            }
        }
    }

    fn make(&self, mib: u64) -> Result<(), String> {
        let image = std::fs::File::create(self.image()).map_err(|e| e.to_string())?;
        image.set_len(mib << 20).map_err(|e| e.to_string())?;
        std::fs::create_dir(self.mount_point()).map_err(|e| e.to_string())?;
        // No blocks are kept for root: tests run as root, and full is to be full.
        run("mkfs.ext4", &["-q", "-m", "0", path(&self.image())])?;
        self.mount()
    }

    /// Mounts it; after a fault it is checked first, as at a reboot.
    pub fn mount(&self) -> Result<(), String> {
        // Exit code 1: errors were corrected.
        let checked = Command::new("e2fsck").args(["-p", path(&self.image())]).output();
        checked.map_err(|e| format!("e2fsck: {e}"))?;
        let (image, point) = (self.image(), self.mount_point());
        run("mount", &["-o", "loop,errors=remount-ro", path(&image), path(&point)]).map(drop)
    }

    pub fn unmount(&self) {
        run("umount", &[path(&self.mount_point())]).unwrap();
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn mount_point(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    /// A directory that is not on it, and goes with it.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// A directory on it.
    pub fn spool(&self) -> PathBuf {
        self.mount_point().join("spool")
    }

    /// The kernel finds an error and takes it read-only, as it does on a disk that goes bad.
    pub fn turn_read_only(&self) -> Result<(), String> {
        let device = run("findmnt", &["-n", "-o", "SOURCE", path(&self.mount_point())])?;
        let name = device.rsplit('/').next().unwrap_or_default().to_owned();
        std::fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "1").map_err(|e| e.to_string())
    }

    /// Every access gives EIO from now on (EXT4_IOC_SHUTDOWN without flushing the log, linux/fs/ext4/ext4.h).
    pub fn die(&self) -> Result<(), String> {
        const SCRIPT: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))";
        run("python3", &["-c", SCRIPT, path(&self.mount_point())]).map(drop)
    }

    /// Every write, of any process, waits for its share of so many bytes a second (blkio, cgroup v1); until it is unmounted.
    pub fn slow(&self, bytes_per_second: u64) -> Result<(), String> {
        std::fs::write(SLOW, format!("{} {bytes_per_second}", self.number()?))
            .map_err(|e| format!("{SLOW}: {e}"))
    }

    /// Major and minor number of its device.
    fn number(&self) -> Result<String, String> {
        let device = run("findmnt", &["-n", "-o", "SOURCE", path(&self.mount_point())])?;
        let name = device.rsplit('/').next().unwrap_or_default();
        let number = std::fs::read_to_string(format!("/sys/class/block/{name}/dev"));
        number.map(|number| number.trim().to_owned()).map_err(|e| format!("{name}: {e}"))
    }

    /// Takes the place of a directory of another disk: its files stay reachable by their names, new ones are made here.
    pub fn stand_in_for(&self, dir: &Path) -> Result<StandIn, String> {
        let (own, other) = (self.spool(), self.dir.path().join("other"));
        for made in [&own, &other] {
            std::fs::create_dir(made).map_err(|e| e.to_string())?;
        }
        run("mount", &["--bind", path(dir), path(&other)])?;
        let stand_in = StandIn { dir: dir.to_owned(), other: other.clone() };
        for entry in std::fs::read_dir(&other).map_err(|e| e.to_string())? {
            let name = entry.map_err(|e| e.to_string())?.file_name();
            std::os::unix::fs::symlink(other.join(&name), own.join(&name)).map_err(|e| e.to_string())?;
        }
        run("mount", &["--bind", path(&own), path(dir)])?;
        Ok(stand_in)
    }

    /// Writes wait until [`Disk::thaw`].
    pub fn freeze(&self) {
        run("fsfreeze", &["-f", path(&self.mount_point())]).unwrap();
    }

    pub fn thaw(&self) {
        run("fsfreeze", &["-u", path(&self.mount_point())]).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Ok(number) = self.number() {
            let _not_slow = std::fs::write(SLOW, format!("{number} 0"));
        }
        let _not_frozen = run("fsfreeze", &["-u", path(&self.mount_point())]);
        let _not_mounted = run("umount", &["-l", path(&self.mount_point())]);
    }
}

/// See [`Disk::stand_in_for`]; over when it is dropped.
pub struct StandIn {
    dir: PathBuf,
    other: PathBuf,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _not_mounted = run("umount", &["-l", path(&self.dir)]);
        let _not_mounted = run("umount", &["-l", path(&self.other)]);
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
