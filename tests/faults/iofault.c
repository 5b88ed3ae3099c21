/* Faults of a disk, at the door of the system itself.

A seccomp filter traps every call that opens, writes, syncs, renames, deletes, makes or cuts a file, whoever makes
it: Python, a native library, or code that goes past the C library (Rust's rustix does). The handler of the trap
counts those on paths below one directory and either lets the call through or does to it what a bad disk would do.

Counting begins with the first call whose path has `from` in it and ends before the first one after that whose path
has `until` in it. Each counted call is a line "NAME PATH" of a log; "look" is an open for reading only, and "again" a
mkdir of what is there already. Linux on x86-64 and ARM64. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum fault {
    NONE, FULL, FAILED, SHORT, SHORT_THEN_FULL, INTERRUPTED, KILL_BEFORE, KILL_AFTER, FULL_FROM_HERE, FAILED_FROM_HERE
};

static struct {
    char prefix[PATH_MAX], from[256], until[256];
    long at, count;
    enum fault fault;
    int log;
    enum { WAITING, COUNTING, OVER } stage;
    int half;  /* a part of a write has been written, the rest will meet a full disk */
} state;

/* The one place whose calls the filter lets through. */
long iofault_call(long nr, long a, long b, long c, long d, long e, long f);
extern const char iofault_after[] __attribute__((visibility("hidden")));
#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
__asm__(".text\n.globl iofault_call\n.globl iofault_after\n.hidden iofault_after\niofault_call:\n"
        "mov %rdi,%rax\nmov %rsi,%rdi\nmov %rdx,%rsi\nmov %rcx,%rdx\nmov %r8,%r10\nmov %r9,%r8\nmov 8(%rsp),%r9\n"
        "syscall\niofault_after:\nret\n");
static const int REGISTER[] = {REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8, REG_R9};
#define ARGUMENT(u, i) ((long)(u)->uc_mcontext.gregs[REGISTER[i]])
#define RESULT(u) ((u)->uc_mcontext.gregs[REG_RAX])
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
__asm__(".text\n.globl iofault_call\n.globl iofault_after\n.hidden iofault_after\niofault_call:\n"
        "mov x8,x0\nmov x0,x1\nmov x1,x2\nmov x2,x3\nmov x3,x4\nmov x4,x5\nmov x5,x6\n"
        "svc #0\niofault_after:\nret\n");
#define ARGUMENT(u, i) ((long)(u)->uc_mcontext.regs[i])
#define RESULT(u) ((u)->uc_mcontext.regs[0])
#else
#error "no trap for this processor"
#endif

/* where: which argument is the path or, if `descriptor`, the open file. The argument before the path of an …at call
is the directory that it starts from. Of two paths, the new name. */
enum kind { PATH, AT, DESCRIPTOR };
static const struct call { int nr; const char *name; int where; enum kind kind; } CALLS[] = {
#ifdef SYS_open
    {SYS_open, "open", 0, PATH}, {SYS_creat, "open", 0, PATH}, {SYS_rename, "rename", 1, PATH},
    {SYS_unlink, "unlink", 0, PATH}, {SYS_rmdir, "unlink", 0, PATH}, {SYS_mkdir, "mkdir", 0, PATH},
    {SYS_link, "link", 1, PATH}, {SYS_truncate, "truncate", 0, PATH},
#endif
    {SYS_openat, "open", 1, AT}, {SYS_renameat, "rename", 3, AT}, {SYS_renameat2, "rename", 3, AT},
    {SYS_linkat, "link", 3, AT}, {SYS_unlinkat, "unlink", 1, AT}, {SYS_mkdirat, "mkdir", 1, AT},
    {SYS_write, "write", 0, DESCRIPTOR}, {SYS_writev, "write", 0, DESCRIPTOR},
    {SYS_pwrite64, "write", 0, DESCRIPTOR}, {SYS_pwritev, "write", 0, DESCRIPTOR},
    {SYS_sendfile, "write", 0, DESCRIPTOR}, {SYS_copy_file_range, "write", 2, DESCRIPTOR},
    {SYS_fsync, "fsync", 0, DESCRIPTOR}, {SYS_fdatasync, "fsync", 0, DESCRIPTOR},
    {SYS_ftruncate, "truncate", 0, DESCRIPTOR}, {SYS_fallocate, "truncate", 0, DESCRIPTOR},
};
#define CALL_COUNT (sizeof CALLS / sizeof *CALLS)

static void descriptor_path(int fd, char *out) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long size = iofault_call(SYS_readlinkat, AT_FDCWD, (long)link, (long)out, PATH_MAX - 1, 0, 0);
    out[size > 0 ? size : 0] = 0;
}

static void call_path(const struct call *call, const long *args, char *out) {
    if (call->kind == DESCRIPTOR) { descriptor_path((int)args[call->where], out); return; }
    const char *path = (const char *)args[call->where];
    size_t size = 0;
    out[0] = 0;
    if (path == NULL) return;
    if (path[0] != '/') {
        if (call->kind == AT && (int)args[call->where - 1] != AT_FDCWD)
            descriptor_path((int)args[call->where - 1], out);
        else
            iofault_call(SYS_getcwd, (long)out, PATH_MAX, 0, 0, 0, 0);
        size = strlen(out);
        out[size++] = '/';
    }
    snprintf(out + size, PATH_MAX, "%s", path);
}

/* Whether the call is one to count. Files that are opened only to be read count too: a disk may fail there. */
static int counted(const char *path) {
    size_t size = strlen(state.prefix);
    if (strncmp(path, state.prefix, size) || (path[size] && path[size] != '/')) return 0;
    if (state.stage == WAITING && strstr(path, state.from)) state.stage = COUNTING;
    else if (state.stage == COUNTING && state.until[0] && strstr(path, state.until)) state.stage = OVER;
    return state.stage == COUNTING;
}

static void note(const struct call *call, const long *args, const char *path) {
    char line[2 * PATH_MAX + 32];
    const char *name = call->name;
    if (!strcmp(name, "open") && (args[call->where + 1] & O_ACCMODE) == O_RDONLY) name = "look";
    if (!strcmp(name, "mkdir") && !iofault_call(SYS_faccessat, AT_FDCWD, (long)path, F_OK, 0, 0, 0)) name = "again";
    int size = snprintf(line, sizeof line, "%s %s\n", name, path);
    iofault_call(SYS_write, state.log, (long)line, size, 0, 0, 0);
}

static _Noreturn void die(void) {
    iofault_call(SYS_kill, iofault_call(SYS_getpid, 0, 0, 0, 0, 0, 0), SIGKILL, 0, 0, 0, 0);
    for (;;) {}
}

static long through(long nr, const long *a) { return iofault_call(nr, a[0], a[1], a[2], a[3], a[4], a[5]); }

/* Half of what was to be written; of a list of buffers the first one only. */
static long halved(long nr, const long *args) {
    long changed[6];
    memcpy(changed, args, sizeof changed);
    if (nr == SYS_writev || nr == SYS_pwritev) changed[2] = 1;
    else if (nr == SYS_sendfile) changed[3] = (args[3] + 1) / 2;
    else if (nr == SYS_copy_file_range) changed[4] = (args[4] + 1) / 2;
    else changed[2] = (args[2] + 1) / 2;
    return through(nr, changed);
}

static long faulty(long nr, const struct call *call, const long *args) {
    long k = ++state.count;
    if (state.half && !strcmp(call->name, "write")) { state.half = 0; return -ENOSPC; }
    if (state.fault == FULL_FROM_HERE && k >= state.at && strcmp(call->name, "unlink")) return -ENOSPC;
    if (state.fault == FAILED_FROM_HERE && k >= state.at) return -EIO;
    if (k != state.at) return through(nr, args);
    switch (state.fault) {
    case FULL: return -ENOSPC;
    case FAILED: return -EIO;
    case INTERRUPTED: return -EINTR;
    case SHORT: return halved(nr, args);
    case SHORT_THEN_FULL: state.half = 1; return halved(nr, args);
    case KILL_BEFORE: die();
    case KILL_AFTER: through(nr, args); die();
    default: return through(nr, args);
    }
}

static void trapped(int number, siginfo_t *info, void *context) {
    ucontext_t *u = context;
    long args[6];
    char path[2 * PATH_MAX];
    const struct call *call = CALLS;
    (void)number;
    for (int i = 0; i < 6; i++) args[i] = ARGUMENT(u, i);
    while (call->nr != info->si_syscall) call++;
    call_path(call, args, path);
    if (!counted(path)) { RESULT(u) = through(call->nr, args); return; }
    note(call, args, path);
    RESULT(u) = faulty(call->nr, call, args);
}

#define FIELD(name) offsetof(struct seccomp_data, name)
#define LOAD(offset) (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset)
#define IS(value, yes, no) (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(value), yes, no)
#define END(what) (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, what)

/* Trap the calls of the table, unless they come from iofault_call or are of another processor's kind. */
static int install(void) {
    struct sock_filter program[CALL_COUNT + 16];
    uint64_t ours = (uint64_t)(uintptr_t)iofault_after;
    unsigned short n = 0;
    program[n++] = LOAD(FIELD(arch));
    program[n++] = IS(ARCH, 1, 0);
    program[n++] = END(SECCOMP_RET_ALLOW);
    program[n++] = LOAD(FIELD(instruction_pointer));
    program[n++] = IS(ours, 0, 3);
    program[n++] = LOAD(FIELD(instruction_pointer) + 4);
    program[n++] = IS(ours >> 32, 0, 1);
    program[n++] = END(SECCOMP_RET_ALLOW);
    program[n++] = LOAD(FIELD(nr));
    for (size_t i = 0; i < CALL_COUNT; i++) program[n++] = IS(CALLS[i].nr, (uint8_t)(CALL_COUNT - i), 0);
    program[n++] = END(SECCOMP_RET_ALLOW);
    program[n++] = END(SECCOMP_RET_TRAP);
    struct sock_fprog all = {.len = n, .filter = program};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return errno;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &all) ? errno : 0;
}

/* Begin to watch this process, for good. at: which counted call meets the fault, from 1. 0, or an errno. */
int iofault_arm(const char *prefix, const char *from, const char *until, const char *log, long at, int fault) {
    struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO | SA_NODEFER};
    snprintf(state.prefix, sizeof state.prefix, "%s", prefix);
    snprintf(state.from, sizeof state.from, "%s", from);
    snprintf(state.until, sizeof state.until, "%s", until);
    state.at = at;
    state.fault = (enum fault)fault;
    state.log = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    if (state.log < 0) return errno;
    sigfillset(&action.sa_mask);  /* a second trap must not be held back, whatever else is */
    sigdelset(&action.sa_mask, SIGSYS);
    if (sigaction(SIGSYS, &action, NULL)) return errno;
    return install();
}
