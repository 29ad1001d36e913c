//! A directory by its descriptor. Owns how directories are reached and how files in them are named, opened and published; not
//! what is in the files.
//!
//! Somebody else may own the directory and exchange what is in it at any moment. So every name is one component below a
//! descriptor, no symbolic link is followed on the way (`O_NOFOLLOW` for each component), and only regular files are opened,
//! without waiting for the other end of a FIFO.
//!
//! Invariant: whatever is put into the directory, no file outside of it is read, written, cut or removed.

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

/// Directories are the owner's alone, and so are files.
const DIRECTORY_MODE: Mode = Mode::RWXU;
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
const ON_THE_WAY: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Never waits, and follows nothing.
const SAFELY: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// What a file or directory is on its host, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub device: u64,
    pub inode: u64,
}

impl From<&Stat> for Identity {
    fn from(stat: &Stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }
}

/// Where a directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The operator's word: links on the way are followed.
    pub root: PathBuf,
    /// Somebody else's word, below `root`: no link is followed.
    pub below: PathBuf,
    /// The operator's own directories.
    pub closed: Vec<ClosedDir>,
    /// Whether what is missing above `root` is made too.
    pub makes_parents: bool,
    /// Whether an object makes the directory. Otherwise only a probe does, which comes before a capture: a directory that has
    /// gone since may be on a disk that is not mounted.
    pub makes_for_objects: bool,
}

/// A directory of this host that no customer's objects go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedDir {
    /// The directory.
    pub dir: PathBuf,
    /// Whether what is below it is closed too.
    pub with_below: bool,
}

impl Place {
    /// Whether a customer named it.
    pub fn on_customers_word(&self) -> bool {
        !self.makes_for_objects
    }

    pub fn path(&self) -> PathBuf {
        self.root.join(&self.below)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// Opens the directory; with `make`, what is missing of it is made, as its owner's alone.
    pub fn open(place: &Place, make: bool) -> io::Result<Self> {
        let closed = place.closed.iter().filter_map(identified).collect::<io::Result<Vec<_>>>()?;
        if make {
            use std::os::unix::fs::DirBuilderExt;
            let mut make = std::fs::DirBuilder::new();
            match make.recursive(place.makes_parents).mode(DIRECTORY_MODE.bits()).create(&place.root) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made?,
            }
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut fd = rustix::fs::openat(CWD, &place.root, flags, Mode::empty())?;
        keep_out_of(&fd, place, &closed)?;
        let mut path = place.root.clone();
        let mut components = place.below.components().peekable();
        while let Some(component) = components.next() {
            let name = match component {
                Component::Normal(name) => name,
                Component::CurDir => continue,
                _ => return Err(io::Error::other(format!("{} is no plain path", place.below.display()))),
            };
            path.push(name);
            fd = enter(&fd, name, &path, make)?;
            let here = Identity::from(&rustix::fs::fstat(&fd)?);
            let is_last = components.peek().is_none();
            if closed.iter().any(|(identity, with_below)| *identity == here && (*with_below || is_last)) {
                return Err(own(&path));
            }
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: rustix::fs::openat(&fd, ".", flags, Mode::empty())?, path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file without a name, which goes with the process however that ends.
    pub fn nameless(&self) -> io::Result<File> {
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.fd, ".", flags, FILE_MODE)?.into())
    }

    /// A new file.
    pub fn create(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | SAFELY;
        Ok(rustix::fs::openat(&self.fd, component(name)?, flags, FILE_MODE)?.into())
    }

    /// A file that is there, for reading.
    pub fn read(&self, name: &str) -> io::Result<File> {
        self.regular(name, OFlags::RDONLY)
    }

    /// A file that is there, for reading on a customer's word: this host's own, under this name alone. A hard link would lead
    /// to a file of elsewhere. A segment that becomes an object has two names for a moment.
    pub fn read_own(&self, name: &str) -> io::Result<File> {
        let file = self.read(name)?;
        let stat = rustix::fs::fstat(&file)?;
        if stat.st_nlink != 1 {
            let two =
                "it has another name, and only files with one are read; try again in a second if it is new";
            return Err(io::Error::other(two));
        }
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other("it is not of the user that writes objects"));
        }
        Ok(file)
    }

    /// A file that is there, for writing at its end.
    pub fn append(&self, name: &str) -> io::Result<File> {
        self.regular(name, OFlags::WRONLY | OFlags::APPEND)
    }

    fn regular(&self, name: &str, access: OFlags) -> io::Result<File> {
        let opened = rustix::fs::openat(&self.fd, component(name)?, access | SAFELY, Mode::empty());
        let fd = opened.map_err(|error| match error {
            Errno::LOOP => io::Error::other("it is a symbolic link, and none is followed"),
            // Nobody reads at the other end of a FIFO.
            Errno::NXIO => no_file(),
            error => error.into(),
        })?;
        match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
            FileType::RegularFile => Ok(fd.into()),
            _ => Err(no_file()),
        }
    }

    /// Gives a file of this host another name in here, and opens it. None unless the name is then of a regular file of so many
    /// bytes that has these two names alone and is ours as a new one would be; also where the file system or its owner refuses.
    pub fn link(&self, path: &Path, name: &str, bytes: u64) -> Option<File> {
        rustix::fs::linkat(CWD, path, &self.fd, component(name).ok()?, AtFlags::empty()).ok()?;
        let linked = self.linked(name, bytes);
        if linked.is_none() {
            // The name begins with a dot and is never taken for an object.
            let _swept_later = self.remove(name);
        }
        linked
    }

    fn linked(&self, name: &str, bytes: u64) -> Option<File> {
        let file = self.read(name).ok()?;
        let stat = rustix::fs::fstat(&file).ok()?;
        let mode = Mode::from_raw_mode(stat.st_mode);
        let is_ours = mode == FILE_MODE && stat.st_uid == rustix::process::geteuid().as_raw();
        let is_whole = (stat.st_nlink, u64::try_from(stat.st_size).ok()?) == (2, bytes);
        // Objects are as old as their delivery.
        (is_ours && is_whole && file.set_modified(SystemTime::now()).is_ok()).then_some(file)
    }

    /// What has this name; a link is itself.
    pub fn stat(&self, name: &str) -> io::Result<Stat> {
        Ok(rustix::fs::statat(&self.fd, component(name)?, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    pub fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.fd, component(name)?, AtFlags::empty())?)
    }

    /// Gives a file its final name if nobody has it. NFS cannot rename without replacing; there a hard link does it.
    pub fn publish(&self, temporary: &str, name: &str) -> io::Result<()> {
        let (from, to) = (component(temporary)?, component(name)?);
        match rustix::fs::renameat_with(&self.fd, from, &self.fd, to, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                Ok(rustix::fs::linkat(&self.fd, from, &self.fd, to, AtFlags::empty())?)
            }
            renamed => Ok(renamed?),
        }
    }

    /// Names and types of what is in it. Names that are no text are nobody's that writes here.
    pub fn list(&self) -> io::Result<Vec<(String, FileType)>> {
        let mut found = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name != "." && name != ".." {
                found.push((name.to_owned(), entry.file_type()));
            }
        }
        Ok(found)
    }

    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.fd)?)
    }
}

/// What an open file is.
pub(super) fn identity(file: &File) -> io::Result<Identity> {
    Ok(Identity::from(&rustix::fs::fstat(file)?))
}

fn identity_of(dir: &Path) -> io::Result<Identity> {
    Ok(Identity::from(&rustix::fs::stat(dir)?))
}

fn own(path: &Path) -> io::Error {
    let own = format!("{} is this host's own directory; name another", path.display());
    io::Error::new(io::ErrorKind::PermissionDenied, own)
}

/// Refuses a root that is closed itself, or lies in a directory that is closed with what is below it.
fn keep_out_of(root: &OwnedFd, place: &Place, closed: &[(Identity, bool)]) -> io::Result<()> {
    if closed.is_empty() {
        return Ok(());
    }
    let mut here = Identity::from(&rustix::fs::fstat(root)?);
    let is_last = !place.below.components().any(|component| matches!(component, Component::Normal(_)));
    let is_it = |(identity, with_below): &(Identity, bool)| *identity == here && (*with_below || is_last);
    if closed.iter().any(is_it) {
        return Err(own(&place.root));
    }
    let mut above = rustix::fs::openat(root, "..", ON_THE_WAY, Mode::empty())?;
    loop {
        let next = Identity::from(&rustix::fs::fstat(&above)?);
        if next == here {
            // The root of the file system is above itself.
            return Ok(());
        }
        here = next;
        if closed.iter().any(|(identity, with_below)| *identity == here && *with_below) {
            return Err(own(&place.root));
        }
        above = rustix::fs::openat(&above, "..", ON_THE_WAY, Mode::empty())?;
    }
}

/// Whether no customer's directory can be below this root, because it lies in a directory that is closed with what is below it.
pub(super) fn is_closed_root(root: &Path, closed: &[ClosedDir]) -> bool {
    let place = Place {
        root: root.to_owned(),
        below: "any".into(),
        closed: closed.to_vec(),
        makes_parents: false,
        makes_for_objects: false,
    };
    let refused = || {
        let closed = place.closed.iter().filter_map(identified).collect::<io::Result<Vec<_>>>()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        keep_out_of(&rustix::fs::openat(CWD, &place.root, flags, Mode::empty())?, &place, &closed)
    };
    refused().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// A closed directory's; none if it is not there, so that nothing can lie in it.
fn identified(closed: &ClosedDir) -> Option<io::Result<(Identity, bool)>> {
    match identity_of(&closed.dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        found => Some(found.map(|identity| (identity, closed.with_below))),
    }
}

fn no_file() -> io::Error {
    io::Error::other("it is no regular file")
}

/// A name is one component: nothing that leads elsewhere.
fn component(name: &str) -> io::Result<&str> {
    let mut components = Path::new(name).components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(only)), None) if only == OsStr::new(name) => Ok(name),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no file name"))),
    }
}

/// The next directory on the way.
fn enter(at: &OwnedFd, name: &OsStr, path: &Path, make: bool) -> io::Result<OwnedFd> {
    let open = || rustix::fs::openat(at.as_fd(), name, ON_THE_WAY, Mode::empty());
    let opened = match open() {
        Err(Errno::NOENT) if make => match rustix::fs::mkdirat(at.as_fd(), name, DIRECTORY_MODE) {
            Ok(()) | Err(Errno::EXIST) => open(),
            Err(error) => Err(error),
        },
        opened => opened,
    };
    opened.map_err(|error| {
        let is_link = || {
            let stat = rustix::fs::statat(at.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW);
            stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
        };
        match error {
            Errno::NOTDIR | Errno::LOOP if is_link() => {
                let what = format!("{} is a symbolic link, and none is followed", path.display());
                io::Error::new(io::ErrorKind::NotADirectory, what)
            }
            error => error.into(),
        }
    })
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn place(root: &Path, below: &str) -> Place {
        Place {
            root: root.to_owned(),
            below: below.into(),
            closed: Vec::new(),
            makes_parents: true,
            makes_for_objects: true,
        }
    }

    #[test]
    fn no_link_is_followed_below_the_operators_directory_and_those_above_are() {
        let root = tempfile::tempdir().unwrap();
        let real = root.path().join("real/of/somebody");
        fs::create_dir_all(&real).unwrap();
        symlink(root.path().join("real"), root.path().join("link")).unwrap();
        assert!(Folder::open(&place(root.path(), "real/of/somebody"), false).is_ok());
        for below in ["link", "link/of/somebody", "link/new"] {
            for make in [false, true] {
                let error = Folder::open(&place(root.path(), below), make).unwrap_err();
                assert!(error.to_string().contains("link is a symbolic link"), "{below}: {error}");
            }
        }
        assert!(!root.path().join("real/new").exists());
        assert!(Folder::open(&place(&root.path().join("link"), "of/somebody"), false).is_ok());
    }

    #[test]
    fn nothing_leads_out_of_it_and_the_hosts_own_directories_are_closed_also_by_another_way() {
        let root = tempfile::tempdir().unwrap();
        for below in ["../elsewhere", "a/../../elsewhere", "/etc"] {
            assert!(Folder::open(&place(root.path(), below), true).is_err(), "{below}");
        }
        fs::create_dir_all(root.path().join("spool/in")).unwrap();
        let closed = vec![
            ClosedDir { dir: root.path().join("link"), with_below: true },
            ClosedDir { dir: root.path().join("store"), with_below: false },
        ];
        fs::create_dir(root.path().join("store")).unwrap();
        symlink(root.path().join("spool"), root.path().join("link")).unwrap();
        let place_of = |below| Place { closed: closed.clone(), ..place(root.path(), below) };
        assert!(Folder::open(&place_of("store/of/somebody"), true).is_ok());
        for below in ["spool", "spool/in", "spool/new", "store"] {
            let error = Folder::open(&place_of(below), true).unwrap_err();
            assert!(error.to_string().contains("this host's own directory"), "{error}");
        }
        assert!(!root.path().join("spool/new").exists());
        let folder = Folder::open(&place(root.path(), ""), false).unwrap();
        for name in ["..", ".", "a/b", "/etc/passwd", "", "a/"] {
            assert!(folder.create(name).is_err() && folder.remove(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_hosts_own_directories_are_closed_as_roots_too_and_so_are_roots_in_them() {
        let dir = tempfile::tempdir().unwrap();
        for made in ["spool/in/it", "store/in"] {
            fs::create_dir_all(dir.path().join(made)).unwrap();
        }
        symlink(dir.path().join("spool/in"), dir.path().join("link")).unwrap();
        let closed = vec![
            ClosedDir { dir: dir.path().join("spool"), with_below: true },
            ClosedDir { dir: dir.path().join("store"), with_below: false },
        ];
        let open = |root: &str, below: &str| {
            let place = Place { closed: closed.clone(), ..place(&dir.path().join(root), below) };
            Folder::open(&place, false)
        };
        for (root, below) in [
            ("spool", ""),
            ("spool", "in"),
            ("spool/in", "it"),
            ("link", ""),
            ("link", "it"),
            ("store", ""),
            ("store", "."),
        ] {
            let error = open(root, below).expect_err(root);
            assert!(error.to_string().contains("this host's own directory"), "{root} {below}: {error}");
        }
        for (root, is_closed) in
            [("spool", true), ("link", true), ("store", false), ("", false), ("no", false)]
        {
            assert_eq!(is_closed_root(&dir.path().join(root), &closed), is_closed, "{root}");
        }
        assert!(open("store", "in").is_ok() && open("", "store/in").is_ok());
    }

    #[test]
    fn a_customers_file_is_read_only_if_it_is_ours_and_has_no_other_name() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::open(&place(root.path(), ""), false).unwrap();
        fs::write(root.path().join("object"), "x").unwrap();
        assert!(folder.read_own("object").is_ok());
        fs::hard_link(root.path().join("object"), root.path().join("other")).unwrap();
        for name in ["object", "other"] {
            let error = folder.read_own(name).unwrap_err();
            assert!(error.to_string().contains("another name"), "{error}");
            assert!(folder.read(name).is_ok(), "on the operator's word it is");
        }
        fs::remove_file(root.path().join("other")).unwrap();
        assert!(folder.read_own("object").is_ok());
    }

    #[test]
    fn only_regular_files_are_opened_and_no_fifo_is_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::open(&place(root.path(), ""), false).unwrap();
        fs::write(root.path().join("secret"), "x").unwrap();
        symlink(root.path().join("secret"), root.path().join("link")).unwrap();
        rustix::fs::mknodat(CWD, root.path().join("fifo"), FileType::Fifo, FILE_MODE, 0).unwrap();
        fs::create_dir(root.path().join("dir")).unwrap();
        for name in ["link", "fifo", "dir"] {
            assert!(folder.read(name).is_err() && folder.append(name).is_err(), "{name}");
            assert!(folder.create(name).is_err(), "{name}");
        }
        folder.remove("link").unwrap();
        assert_eq!(fs::read(root.path().join("secret")).unwrap(), b"x");
    }
}
