/* Runs a program and makes one of its system calls fail: the k-th of a kind, once or from then on.
 *
 *   failnth --dir DIR --trace FILE --seconds N [--fault KIND --nth K --mode MODE --errno E] [--possible LIST] -- PROGRAM ARG...
 *
 * A seccomp filter hands every system call that can fail to this process, however it is made: a preloaded library does not see
 * the calls that rustix makes. Calls that concern DIR count, and sockets, and the start of threads; all others pass, and those of
 * threads whose name begins with `client`. Counting begins when the
 * program opens /sweep/begin and ends when it opens /sweep/end (neither exists).
 *
 * A kind is `CALL CLASS`. CALL is the call's name, where `open` says what for: open-read, open-write, open-create, open-dir.
 * CLASS is the path below DIR, with each id as ID and each number as N, or `socket`, or `thread`.
 *
 * MODE   once  the k-th call of the kind fails
 *        kind  it and all later ones of its kind fail
 *        all   it fails, and all later calls of any kind that LIST names fail too: a dead disk, no descriptor left
 *        kill  the program is killed before the call
 *        short the call transfers half of what was asked (read, write and their positioned forms)
 * LIST   CALL=ERRNO,...: what each call fails with in mode `all`
 *
 * io_uring is refused, so that every write is a call of its own.
 *
 * The trace has a line for each call that counted: number, kind, k, thread, what was done. Its last line says how the program
 * ended: `exited CODE`, `signal N` or `hang`, the last after lines that say where each thread waits. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <dirent.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
#define THIS_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define THIS_ARCH AUDIT_ARCH_AARCH64
#else
#error "this processor is not known"
#endif

/* Where a call's arguments name what it concerns. */
enum where {
    FD,      /* arg 0 is a descriptor */
    PATH,    /* arg 0 is a path */
    AT,      /* arg 0 a directory, arg 1 a path */
    AT2,     /* the target of a rename or link: args 2 and 3 */
    PATH2,   /* arg 1 is the target's path */
    OPEN,    /* as PATH, arg 1 has flags */
    OPENAT,  /* as AT, arg 2 has flags */
    MAPPING, /* arg 4 is a descriptor, or none */
    FCNTL,   /* arg 0 is a descriptor; only duplication counts */
    THREAD,
};

static const struct call {
    int nr;
    const char *name;
    enum where where;
} CALLS[] = {
#ifdef __NR_open
    {__NR_open, "open", OPEN},
    {__NR_mkdir, "mkdir", PATH},
    {__NR_rmdir, "rmdir", PATH},
    {__NR_unlink, "unlink", PATH},
    {__NR_rename, "rename", PATH2},
    {__NR_link, "link", PATH2},
    {__NR_stat, "stat", PATH},
    {__NR_lstat, "stat", PATH},
    {__NR_chmod, "chmod", PATH},
    {__NR_readlink, "readlink", PATH},
#endif
#ifdef __NR_renameat
    {__NR_renameat, "rename", AT2},
#endif
    {__NR_openat, "open", OPENAT},
    {__NR_mkdirat, "mkdir", AT},
    {__NR_unlinkat, "unlink", AT},
    {__NR_renameat2, "rename", AT2},
    {__NR_linkat, "link", AT2},
    {__NR_newfstatat, "stat", AT},
    {__NR_statx, "stat", AT},
    {__NR_fchmodat, "chmod", AT},
    {__NR_readlinkat, "readlink", AT},
    {__NR_utimensat, "utimens", AT},
    {__NR_truncate, "truncate", PATH},
    {__NR_statfs, "statfs", PATH},
    {__NR_fstat, "stat", FD},
    {__NR_fstatfs, "statfs", FD},
    {__NR_fchmod, "chmod", FD},
    {__NR_ftruncate, "truncate", FD},
    {__NR_fallocate, "fallocate", FD},
    {__NR_fsync, "fsync", FD},
    {__NR_fdatasync, "fsync", FD},
    {__NR_sync_file_range, "fsync", FD},
    {__NR_read, "read", FD},
    {__NR_pread64, "read", FD},
    {__NR_readv, "read", FD},
    {__NR_preadv, "read", FD},
    {__NR_write, "write", FD},
    {__NR_pwrite64, "write", FD},
    {__NR_writev, "write", FD},
    {__NR_pwritev, "write", FD},
    {__NR_lseek, "lseek", FD},
    {__NR_getdents64, "getdents", FD},
    {__NR_flock, "flock", FD},
    {__NR_copy_file_range, "copy", AT2},
    {__NR_sendfile, "copy", FD},
    {__NR_accept, "accept", FD},
    {__NR_accept4, "accept", FD},
    {__NR_recvfrom, "recv", FD},
    {__NR_recvmsg, "recv", FD},
    {__NR_sendto, "send", FD},
    {__NR_sendmsg, "send", FD},
    {__NR_setsockopt, "setsockopt", FD},
    {__NR_fcntl, "dup", FCNTL},
    {__NR_mmap, "mmap", MAPPING},
    {__NR_clone, "clone", THREAD},
    {__NR_clone3, "clone", THREAD},
};
#define CALLS_LEN (sizeof CALLS / sizeof *CALLS)

#define KIND_MAX 512
#define KINDS_MAX 4096

static struct {
    const char *dir, *fault, *mode, *possible;
    unsigned long nth, seconds;
    int number;
} options = {.mode = "once", .nth = 1, .seconds = 30};

static struct {
    char name[KIND_MAX];
    unsigned long count;
} kinds[KINDS_MAX];
static size_t kinds_len;

static FILE *trace;
static pid_t program;
static int listener, counting, triggered;
static unsigned long number;

static void die(const char *what)
{
    fprintf(stderr, "failnth: %s: %s\n", what, strerror(errno));
    if (program > 0)
        kill(program, SIGKILL);
    exit(125);
}

/* ---- the program's side ---- */

static int install(void)
{
    struct sock_filter code[8 + 2 * CALLS_LEN];
    size_t n = 0;
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, THIS_ARCH, 1, 0);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS);
    for (size_t i = 0; i < CALLS_LEN; i++) {
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)CALLS[i].nr, 0, 1);
        code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    }
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog filter = {.len = (unsigned short)n, .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return -1;
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &filter);
}

/* Starts the program. It shares this process's descriptors until it executes, which is how the listener comes here. */
static void start(char **argv)
{
    volatile int *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        die("mmap");
    *shared = -1;
    program = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);
    if (program < 0)
        die("clone");
    if (program == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int fd = install();
        *shared = fd < 0 ? -2 : fd;
        if (fd < 0)
            _exit(125);
        execvp(argv[0], argv);
        _exit(127);
    }
    while (*shared == -1)
        usleep(100);
    if ((listener = *shared) < 0)
        die("the filter is refused");
}

/* ---- what a call concerns ---- */

static int read_text(pid_t tid, uint64_t at, char *text, size_t len)
{
    size_t have = 0;
    while (have < len) {
        /* Up to the end of a page: what lies behind it may not be there. */
        size_t piece = 4096 - (at + have) % 4096;
        if (piece > len - have)
            piece = len - have;
        struct iovec here = {text + have, piece}, there = {(void *)(uintptr_t)(at + have), piece};
        ssize_t got = process_vm_readv(tid, &here, 1, &there, 1, 0);
        if (got <= 0)
            return -1;
        if (memchr(text + have, 0, (size_t)got))
            return 0;
        have += (size_t)got;
    }
    return -1;
}

static int path_of_fd(pid_t tid, int fd, char *path)
{
    char link[64];
    if (fd == AT_FDCWD)
        snprintf(link, sizeof link, "/proc/%d/cwd", tid);
    else
        snprintf(link, sizeof link, "/proc/%d/fd/%d", tid, fd);
    ssize_t len = readlink(link, path, PATH_MAX - 1);
    if (len < 0)
        return -1;
    path[len] = 0;
    char *gone = strstr(path, " (deleted)");
    if (gone)
        *gone = 0;
    return 0;
}

static int path_at(pid_t tid, int fd, uint64_t at, char *path)
{
    char text[PATH_MAX];
    if (at == 0 || read_text(tid, at, text, sizeof text))
        text[0] = 0;
    const char *own = "/proc/self/cwd/", *below = text;
    if (!strncmp(text, own, strlen(own))) {
        fd = AT_FDCWD;
        below += strlen(own);
    } else if (text[0] == '/') {
        strcpy(path, text);
        return 0;
    }
    if (path_of_fd(tid, fd, path))
        return -1;
    if (below[0]) {
        size_t len = strlen(path);
        snprintf(path + len, PATH_MAX - len, "/%s", below);
    }
    return 0;
}

static int is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

/* `path` below DIR with its ids and numbers taken out; -1 if it is not below DIR. */
static int class_of(const char *path, char *class, size_t room)
{
    size_t prefix = strlen(options.dir), n = 0;
    if (strncmp(path, options.dir, prefix) || (path[prefix] && path[prefix] != '/'))
        return -1;
    const char *at = path + prefix;
    while (*at == '/')
        at++;
    if (!*at)
        return snprintf(class, room, ".") < 0;
    while (*at && n + 3 < room) {
        size_t hex = 0;
        while (is_hex(at[hex]))
            hex++;
        if (hex >= 32) {
            class[n++] = 'I', class[n++] = 'D';
            at += hex;
        } else if (*at >= '0' && *at <= '9') {
            class[n++] = 'N';
            while (*at >= '0' && *at <= '9')
                at++;
        } else {
            class[n++] = *at++;
        }
    }
    class[n] = 0;
    return 0;
}

static const struct call *call_of(int nr)
{
    for (size_t i = 0; i < CALLS_LEN; i++)
        if (CALLS[i].nr == nr)
            return &CALLS[i];
    return NULL;
}

static const char *purpose(uint64_t flags)
{
    if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE)
        return "open-create";
    if (flags & O_DIRECTORY)
        return "open-dir";
    return (flags & O_ACCMODE) == O_RDONLY ? "open-read" : "open-write";
}

/* The call's name and kind; -1 if it does not count. */
static int kind_of(const struct seccomp_notif *ask, const char **name, char *kind)
{
    const struct call *call = call_of(ask->data.nr);
    const __u64 *arg = ask->data.args;
    char path[PATH_MAX], class[KIND_MAX - 32];
    pid_t tid = (pid_t)ask->pid;
    *name = call->name;
    switch (call->where) {
    case FD:
        if (path_of_fd(tid, (int)arg[0], path))
            return -1;
        break;
    case FCNTL:
        if ((arg[1] != F_DUPFD && arg[1] != F_DUPFD_CLOEXEC) || path_of_fd(tid, (int)arg[0], path))
            return -1;
        break;
    case MAPPING:
        if ((int)arg[4] < 0 || path_of_fd(tid, (int)arg[4], path))
            return -1;
        break;
    case PATH:
        if (path_at(tid, AT_FDCWD, arg[0], path))
            return -1;
        break;
    case PATH2:
        if (path_at(tid, AT_FDCWD, arg[1], path))
            return -1;
        break;
    case AT:
        if (path_at(tid, (int)arg[0], arg[1], path))
            return -1;
        break;
    case AT2:
        /* copy_file_range has its target's descriptor there and no path. */
        if (path_at(tid, (int)arg[2], ask->data.nr == __NR_copy_file_range ? 0 : arg[3], path))
            return -1;
        break;
    case OPEN:
        *name = purpose(arg[1]);
        if (path_at(tid, AT_FDCWD, arg[0], path))
            return -1;
        break;
    case OPENAT:
        *name = purpose(arg[2]);
        if (path_at(tid, (int)arg[0], arg[1], path))
            return -1;
        break;
    case THREAD:
        snprintf(kind, KIND_MAX, "%s thread", *name);
        return 0;
    }
    if (!strcmp(path, "/sweep/begin"))
        counting = 1;
    if (!strcmp(path, "/sweep/end"))
        counting = 0;
    if (!strncmp(path, "socket:", 7)) {
        if (!strcmp(*name, "read"))
            *name = "recv";
        if (!strcmp(*name, "write"))
            *name = "send";
        snprintf(kind, KIND_MAX, "%s socket", *name);
        return 0;
    }
    if (class_of(path, class, sizeof class))
        return -1;
    snprintf(kind, KIND_MAX, "%s %s", *name, class);
    return 0;
}

static unsigned long count(const char *kind)
{
    for (size_t i = 0; i < kinds_len; i++)
        if (!strcmp(kinds[i].name, kind))
            return ++kinds[i].count;
    if (kinds_len == KINDS_MAX)
        return 0;
    snprintf(kinds[kinds_len].name, KIND_MAX, "%s", kind);
    return kinds[kinds_len++].count = 1;
}

/* ---- what is done with it ---- */

static int possible(const char *name)
{
    size_t len = strlen(name);
    for (const char *at = options.possible; at && *at; at += *at == ',') {
        if (!strncmp(at, name, len) && at[len] == '=')
            return atoi(at + len + 1);
        at += strcspn(at, ",");
    }
    return 0;
}

/* The errno that the call fails with; 0 if it passes. */
static int decide(const char *name, const char *kind, unsigned long k)
{
    if (!options.fault)
        return 0;
    int same = !strcmp(kind, options.fault), first = same && k == options.nth && !triggered;
    if (first) {
        triggered = 1;
        return options.number;
    }
    if (!triggered)
        return 0;
    if (!strcmp(options.mode, "kind"))
        return same ? options.number : 0;
    if (!strcmp(options.mode, "all"))
        return possible(name);
    return 0;
}

/* Transfers the first half of what was asked for, in the program's stead; -1 if that is not possible. */
static int64_t half(const struct seccomp_notif *ask)
{
    const __u64 *arg = ask->data.args;
    size_t bytes = (size_t)arg[2] / 2;
    if (bytes >= 4096)
        bytes -= bytes % 4096;
    if (bytes == 0)
        return -1;
    int pidfd = (int)syscall(SYS_pidfd_open, program, 0);
    int fd = pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, (int)arg[0], 0);
    void *buffer = NULL;
    int64_t done = -1;
    if (fd >= 0 && !posix_memalign(&buffer, 4096, bytes)) {
        struct iovec here = {buffer, bytes}, there = {(void *)(uintptr_t)arg[1], bytes};
        pid_t tid = (pid_t)ask->pid;
        switch (ask->data.nr) {
        case __NR_write:
        case __NR_pwrite64:
            if (process_vm_readv(tid, &here, 1, &there, 1, 0) == (ssize_t)bytes)
                done = ask->data.nr == __NR_write ? write(fd, buffer, bytes) : pwrite(fd, buffer, bytes, (off_t)arg[3]);
            break;
        case __NR_read:
        case __NR_pread64:
            done = ask->data.nr == __NR_read ? read(fd, buffer, bytes) : pread(fd, buffer, bytes, (off_t)arg[3]);
            here.iov_len = there.iov_len = done > 0 ? (size_t)done : 0;
            if (done > 0 && process_vm_writev(tid, &here, 1, &there, 1, 0) != done)
                done = -1;
            break;
        }
    }
    free(buffer);
    if (fd >= 0)
        close(fd);
    if (pidfd >= 0)
        close(pidfd);
    return done;
}

static void comm_of(pid_t tid, char *comm, size_t len)
{
    char name[64];
    snprintf(name, sizeof name, "/proc/%d/comm", tid);
    FILE *file = fopen(name, "r");
    comm[0] = 0;
    if (file) {
        if (fgets(comm, (int)len, file))
            comm[strcspn(comm, "\n")] = 0;
        fclose(file);
    }
}

static void serve(struct seccomp_notif *ask, struct seccomp_notif_resp *answer)
{
    const char *name;
    char kind[KIND_MAX];
    answer->id = ask->id;
    answer->val = 0;
    answer->error = 0;
    answer->flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    int counts = !kind_of(ask, &name, kind) && counting;
    /* The caller may be gone, and its number another's. */
    if (!counts || ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &ask->id))
        return;
    char comm[32], failed[64];
    comm_of((pid_t)ask->pid, comm, sizeof comm);
    if (!strncmp(comm, "client", 6))
        return;
    unsigned long k = count(kind);
    int before = triggered, fails = decide(name, kind, k);
    const char *done = "";
    if (triggered && !before && !strcmp(options.mode, "kill")) {
        kill(program, SIGKILL);
        /* Or the thread would make the call on its way to its end. */
        answer->flags = 0;
        answer->error = -EINTR;
        done = "killed";
    } else if (triggered && !before && !strcmp(options.mode, "short")) {
        int64_t bytes = half(ask);
        done = "not shortened";
        if (bytes >= 0) {
            answer->flags = 0;
            answer->val = bytes;
            done = "shortened";
        }
    } else if (fails) {
        answer->flags = 0;
        answer->error = -fails;
        snprintf(failed, sizeof failed, "%s", strerrorname_np(fails));
        done = failed;
    }
    fprintf(trace, "%lu\t%s\t%lu\t%s\t%s\n", ++number, kind, k, comm, done);
}

/* ---- its end ---- */

static void line_of(pid_t tid, const char *file, char *line, size_t len)
{
    char name[96];
    snprintf(name, sizeof name, "/proc/%d/task/%d/%s", program, tid, file);
    FILE *from = fopen(name, "r");
    line[0] = 0;
    if (from) {
        if (fgets(line, (int)len, from))
            line[strcspn(line, "\n")] = 0;
        fclose(from);
    }
}

static void where_threads_wait(void)
{
    char tasks[64], comm[32], channel[128], call[256];
    snprintf(tasks, sizeof tasks, "/proc/%d/task", program);
    DIR *dir = opendir(tasks);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        pid_t tid = (pid_t)atoi(entry->d_name);
        if (tid <= 0)
            continue;
        line_of(tid, "comm", comm, sizeof comm);
        line_of(tid, "wchan", channel, sizeof channel);
        line_of(tid, "syscall", call, sizeof call);
        fprintf(trace, "waits\t%s\t%s\t%s\n", comm, channel, call);
    }
    if (dir)
        closedir(dir);
}

/* A debugger's view, into TRACE.threads, if SWEEP_GDB is set. Calls must be answered meanwhile: a thread that waits for this
 * process cannot be stopped. */
static pid_t debugger(const char *trace_path)
{
    if (!getenv("SWEEP_GDB"))
        return -1;
    pid_t child = fork();
    if (child == 0) {
        char out[PATH_MAX], pid[16];
        snprintf(out, sizeof out, "%s.threads", trace_path);
        snprintf(pid, sizeof pid, "%d", program);
        int fd = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        dup2(fd, 1);
        dup2(fd, 2);
        execlp("gdb", "gdb", "-batch", "-p", pid, "-ex", "thread apply all bt 30", (char *)NULL);
        _exit(127);
    }
    return child;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void supervise(const char *trace_path)
{
    struct seccomp_notif_sizes sizes;
    if (syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes))
        die("SECCOMP_GET_NOTIF_SIZES");
    struct seccomp_notif *ask = malloc(sizes.seccomp_notif);
    struct seccomp_notif_resp *answer = malloc(sizes.seccomp_notif_resp);
    int pidfd = (int)syscall(SYS_pidfd_open, program, 0);
    if (!ask || !answer || pidfd < 0)
        die("pidfd_open");
    double deadline = now() + (double)options.seconds;
    int hangs = 0;
    pid_t gdb = -1;
    for (;;) {
        struct pollfd wait[2] = {{.fd = listener, .events = POLLIN}, {.fd = pidfd, .events = POLLIN}};
        poll(wait, 2, 100);
        if (wait[0].revents & POLLIN) {
            memset(ask, 0, sizes.seccomp_notif);
            if (!ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, ask)) {
                memset(answer, 0, sizes.seccomp_notif_resp);
                serve(ask, answer);
                ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, answer);
            }
        } else if (wait[1].revents & POLLIN) {
            break;
        }
        if (now() > deadline && !hangs) {
            hangs = 1;
            where_threads_wait();
            gdb = debugger(trace_path);
            deadline = now() + 20;
        }
        if (hangs && (gdb < 0 || waitpid(gdb, NULL, WNOHANG) == gdb || now() > deadline))
            kill(program, SIGKILL);
    }
    int status = 0;
    waitpid(program, &status, 0);
    if (hangs)
        fprintf(trace, "hang\n");
    else if (WIFEXITED(status))
        fprintf(trace, "exited %d\n", WEXITSTATUS(status));
    else
        fprintf(trace, "signal %d\n", WTERMSIG(status));
}

int main(int argc, char **argv)
{
    const char *trace_path = NULL;
    char real[PATH_MAX];
    int i = 1;
    for (; i + 1 < argc && strcmp(argv[i], "--"); i += 2) {
        const char *value = argv[i + 1];
        if (!strcmp(argv[i], "--dir"))
            options.dir = realpath(value, real);
        else if (!strcmp(argv[i], "--trace"))
            trace_path = value;
        else if (!strcmp(argv[i], "--seconds"))
            options.seconds = strtoul(value, NULL, 10);
        else if (!strcmp(argv[i], "--fault"))
            options.fault = value;
        else if (!strcmp(argv[i], "--nth"))
            options.nth = strtoul(value, NULL, 10);
        else if (!strcmp(argv[i], "--mode"))
            options.mode = value;
        else if (!strcmp(argv[i], "--errno"))
            options.number = atoi(value);
        else if (!strcmp(argv[i], "--possible"))
            options.possible = value;
        else
            return fprintf(stderr, "failnth: %s is not known\n", argv[i]), 125;
    }
    if (i + 1 >= argc || !options.dir || !trace_path)
        return fprintf(stderr, "failnth: --dir, --trace and a program are needed\n"), 125;
    if (!(trace = fopen(trace_path, "we")))
        die(trace_path);
    start(argv + i + 1);
    supervise(trace_path);
    fclose(trace);
    return 0;
}
