/* Loaded under Python by LD_PRELOAD: counts what is done to the files of one folder, and lets it fail.
 *
 *   gcc -shared -fPIC -O1 -o shim.so shim.c -ldl
 *
 * An event is a call that changes a file whose path starts with the armed prefix: write, fsync, rename, unlink,
 * truncate, creating a file or folder. SQLite of the same process is seen too, and so are stdio's writers (FAISS, NumPy).
 * What is done through mmap (SQLite's -shm, which a crash makes worthless) is not.
 *
 * From the nth event of the chosen kinds on, for `times` events: */
enum { COUNT, KILL_BEFORE, KILL_AFTER, KILL_TORN, ERROR, SHORT }; /* TORN: half of a write, then the kill */
enum { WRITE = 1, SYNC = 2, RENAME = 4, UNLINK = 8, TRUNCATE = 16, CREATE = 32 };
/* SHORT: half of a write is done and said so; what follows within `times` fails with `error`.
 *
 * With a shadow folder each synced file is copied there under its inode's number: what a crash of the machine keeps. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES 4096
static char prefix[4096], shadow[4096], tracked[FILES];
static int action, error_number, kinds, armed;
static long nth, times, events;

#define REAL(result, name, ...) \
    static result (*real_##name)(__VA_ARGS__); \
    if (!real_##name) real_##name = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

void shim_arm(const char *folder, long first, int what, int error, long how_often, int which, const char *copies) {
    snprintf(prefix, sizeof prefix, "%s", folder);
    snprintf(shadow, sizeof shadow, "%s", copies);
    nth = first, action = what, error_number = error, times = how_often, kinds = which;
    events = 0;
    memset(tracked, 0, sizeof tracked);
    armed = 1;
}

unsigned char shim_history[1 << 20]; /* the kind of each event */

long shim_events(void) { return events; }

static int is_ours(int directory, const char *path) {
    if (!armed || !path) return 0;
    if (path[0] != '/' && directory >= 0 && directory < FILES) return tracked[directory];
    size_t length = strlen(prefix);
    return !strncmp(path, prefix, length) && (path[length] == '/' || !path[length]);
}

static int is_tracked(int file) { return armed && file >= 0 && file < FILES && tracked[file]; }

static void track(int file, int ours) {
    if (file >= 0 && file < FILES) tracked[file] = (char)ours;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* What is to happen to this event: COUNT for nothing. */
static int event(int kind) {
    if (!(kinds & kind)) return COUNT;
    long number = events++;
    if (number < (long)sizeof shim_history) shim_history[number] = (unsigned char)kind;
    if (action == COUNT || number < nth || number >= nth + times) return COUNT;
    if (action == KILL_BEFORE || (action == KILL_TORN && kind != WRITE)) die();
    if (action == SHORT && (kind != WRITE || number > nth)) return ERROR;
    return action;
}

static int failed(void) {
    errno = error_number;
    return -1;
}

#define CHANGE(kind, ours, type, call) \
    do { \
        int what = (ours) ? event(kind) : COUNT; \
        if (what == ERROR) return (type)failed(); \
        type result = call; \
        if (what == KILL_AFTER) die(); \
        return result; \
    } while (0)

#define WRITES(ours, call) /* `call` writes `length` bytes */ \
    do { \
        int what = (ours) ? event(WRITE) : COUNT; \
        if (what == ERROR) return failed(); \
        if ((what == SHORT || what == KILL_TORN) && length > 1) length /= 2; \
        ssize_t result = call; \
        if (what == KILL_AFTER || what == KILL_TORN) die(); \
        return result; \
    } while (0)

ssize_t write(int file, const void *data, size_t length) {
    REAL(ssize_t, write, int, const void *, size_t);
    WRITES(is_tracked(file), real_write(file, data, length));
}

ssize_t pwrite(int file, const void *data, size_t length, off_t at) {
    REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
    WRITES(is_tracked(file), real_pwrite(file, data, length, at));
}

ssize_t pwrite64(int file, const void *data, size_t length, off64_t at) {
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    WRITES(is_tracked(file), real_pwrite64(file, data, length, at));
}

size_t fwrite(const void *data, size_t size, size_t count, FILE *stream) {
    REAL(size_t, fwrite, const void *, size_t, size_t, FILE *);
    int what = is_tracked(fileno(stream)) ? event(WRITE) : COUNT;
    if (what == ERROR || what == SHORT) {
        errno = error_number;
        return 0;
    }
    if (what == KILL_TORN) count /= 2;
    size_t result = real_fwrite(data, size, count, stream);
    if (what == KILL_AFTER || what == KILL_TORN) {
        fflush(stream);
        die();
    }
    return result;
}

static const char *kept(ino_t inode) {
    static char name[4200];
    snprintf(name, sizeof name, "%s/%lu", shadow, (unsigned long)inode);
    return name;
}

/* Through `file` itself: opening and closing the database once more would drop SQLite's locks. */
static void keep(int file) {
    REAL(int, open, const char *, int, ...);
    REAL(int, close, int);
    REAL(ssize_t, write, int, const void *, size_t);
    char block[65536];
    struct stat facts;
    off_t at = 0;
    ssize_t got;
    if (!shadow[0] || fstat(file, &facts) || !S_ISREG(facts.st_mode)) return;
    int copy = real_open(kept(facts.st_ino), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    while ((got = pread(file, block, sizeof block, at)) > 0) {
        if (real_write(copy, block, (size_t)got) != got) abort();
        at += got;
    }
    real_close(copy);
}

/* A new file may get the inode of one that is gone. */
static void forget(int file) {
    REAL(int, unlink, const char *);
    struct stat facts;
    if (shadow[0] && !fstat(file, &facts)) real_unlink(kept(facts.st_ino));
}

static int synced(int file, int (*call)(int)) {
    int what = is_tracked(file) ? event(SYNC) : COUNT;
    if (what == ERROR) return failed();
    int result = call(file);
    if (!result && is_tracked(file)) keep(file);
    if (what == KILL_AFTER) die();
    return result;
}

int fsync(int file) {
    REAL(int, fsync, int);
    return synced(file, real_fsync);
}

int fdatasync(int file) {
    REAL(int, fdatasync, int);
    return synced(file, real_fdatasync);
}

int ftruncate(int file, off_t length) {
    REAL(int, ftruncate, int, off_t);
    CHANGE(TRUNCATE, is_tracked(file), int, real_ftruncate(file, length));
}

int ftruncate64(int file, off64_t length) {
    REAL(int, ftruncate64, int, off64_t);
    CHANGE(TRUNCATE, is_tracked(file), int, real_ftruncate64(file, length));
}

int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    CHANGE(RENAME, is_ours(-1, to), int, real_rename(from, to));
}

int renameat(int a, const char *from, int b, const char *to) {
    REAL(int, renameat, int, const char *, int, const char *);
    CHANGE(RENAME, is_ours(b, to), int, real_renameat(a, from, b, to));
}

int unlink(const char *path) {
    REAL(int, unlink, const char *);
    CHANGE(UNLINK, is_ours(-1, path), int, real_unlink(path));
}

int unlinkat(int directory, const char *path, int flags) {
    REAL(int, unlinkat, int, const char *, int);
    CHANGE(UNLINK, is_ours(directory, path), int, real_unlinkat(directory, path, flags));
}

int rmdir(const char *path) {
    REAL(int, rmdir, const char *);
    CHANGE(UNLINK, is_ours(-1, path), int, real_rmdir(path));
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t);
    CHANGE(CREATE, is_ours(-1, path), int, real_mkdir(path, mode));
}

/* An opening is an event where it creates the file. */
static int opened(int directory, const char *path, int flags, mode_t mode) {
    REAL(int, openat, int, const char *, int, ...);
    int ours = is_ours(directory, path);
    int creates = ours && (flags & O_CREAT) && faccessat(directory, path, F_OK, 0);
    int what = creates ? event(CREATE) : COUNT;
    if (what == ERROR) return failed();
    int file = real_openat(directory, path, flags, mode);
    track(file, ours);
    if (creates && file >= 0) forget(file);
    if (what == KILL_AFTER) die();
    return file;
}

#define MODE \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

int open(const char *path, int flags, ...) {
    MODE
    return opened(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE
    return opened(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

int openat(int directory, const char *path, int flags, ...) {
    MODE
    return opened(directory, path, flags, mode);
}

int openat64(int directory, const char *path, int flags, ...) {
    MODE
    return opened(directory, path, flags | O_LARGEFILE, mode);
}

static FILE *streamed(const char *path, const char *mode, FILE *(*call)(const char *, const char *)) {
    int ours = is_ours(-1, path);
    int creates = ours && mode[0] != 'r' && access(path, F_OK);
    int what = creates ? event(CREATE) : COUNT;
    if (what == ERROR) {
        errno = error_number;
        return NULL;
    }
    FILE *stream = call(path, mode);
    if (stream) track(fileno(stream), ours);
    if (stream && creates) forget(fileno(stream));
    if (what == KILL_AFTER) die();
    return stream;
}

FILE *fopen(const char *path, const char *mode) {
    REAL(FILE *, fopen, const char *, const char *);
    return streamed(path, mode, real_fopen);
}

FILE *fopen64(const char *path, const char *mode) {
    REAL(FILE *, fopen64, const char *, const char *);
    return streamed(path, mode, real_fopen64);
}

/* os.dup is a fcntl; NumPy writes arrays through a copy of Python's descriptor. */
static int controlled(int file, int command, void *argument, int (*call)(int, int, ...)) {
    int result = call(file, command, argument);
    if (command == F_DUPFD || command == F_DUPFD_CLOEXEC) track(result, is_tracked(file));
    return result;
}

#define ARGUMENT \
    va_list rest; \
    va_start(rest, command); \
    void *argument = va_arg(rest, void *); \
    va_end(rest);

int fcntl(int file, int command, ...) {
    REAL(int, fcntl, int, int, ...);
    ARGUMENT
    return controlled(file, command, argument, real_fcntl);
}

int fcntl64(int file, int command, ...) {
    REAL(int, fcntl64, int, int, ...);
    ARGUMENT
    return controlled(file, command, argument, real_fcntl64);
}

int close(int file) {
    REAL(int, close, int);
    track(file, 0);
    return real_close(file);
}

int fclose(FILE *stream) {
    REAL(int, fclose, FILE *);
    track(fileno(stream), 0);
    return real_fclose(stream);
}
