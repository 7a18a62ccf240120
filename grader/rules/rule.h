/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Frame of a rule of `cargo lab grade`: a rule is one C file that includes this header and defines `static void rule(void)`.
 *
 *   cargo lab cc read.data.c -o read.data
 *   cargo lab run --driver MY.ko -- ./read.data /dev/globalfifo
 *
 * The device node is the first argument, else $DEVICE, else /dev/globalfifo. Exit status: 0 pass, 1 fail, 77 absent (the driver does not
 * have it), 3 fail with a process that SIGKILL does not end. A failure prints three lines: done, expected, seen.
 *
 * This file knows no driver: only the node, /proc and system calls.
 */
#ifndef RULE_H
#define RULE_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FIFO_CLEAR 0x1
/* Milliseconds that an event may take: the guest's CPUs may be emulated, on a busy machine. Nothing waits that long on a right driver. */
#define SOON (15000 * patience)
/* Milliseconds in which something that must not happen is given the time to happen. */
#define GRACE 50
/* Bytes of a FIFO above which a driver without any limit is assumed. */
#define ENDLESS (64u << 20)

/* A system call in a process of its own. */
struct call {
	pid_t pid;
	long number;	/* SYS_read … */
	int fd;
	volatile long result;	/* as the kernel gives it: -errno */
	char data[65536];
};

static struct { char done[2048]; struct call calls[8]; unsigned count; } *shared;
static const char *node;
static int patience = 1;
/* Flags of the handler that processes of begin_… have for SIGUSR1. */
static int restart_flag;

static void rule(void);

/* What is being done, for the line `done`. */
__attribute__((format(printf, 1, 2), unused))
static void doing(const char *format, ...)
{
	size_t used = strlen(shared->done), room = sizeof(shared->done) - used;
	va_list list;

	if (used && room > 3)
		used += snprintf(shared->done + used, room, "; ");
	va_start(list, format);
	vsnprintf(shared->done + used, sizeof(shared->done) - used, format, list);
	va_end(list);
}

__attribute__((noreturn))
static void verdict(int status)
{
	fflush(stdout);
	_exit(status);
}

__attribute__((noreturn, format(printf, 2, 3), unused))
static void fail(const char *expected, const char *seen, ...)
{
	va_list list;

	printf("done: %s\nexpected: %s\nseen: ", shared->done, expected);
	va_start(list, seen);
	vprintf(seen, list);
	va_end(list);
	printf("\n");
	verdict(1);
}

#define expect(condition, expected, ...) do { if (!(condition)) fail(expected, __VA_ARGS__); } while (0)

/* The driver does not have what the rule is about. */
__attribute__((noreturn, unused))
static void absent(const char *why)
{
	printf("seen: %s\n", why);
	verdict(77);
}

/* A result as the kernel gives it. */
#define kernel(call) ({ long got_ = (call); got_ < 0 ? -(long)errno : got_; })

/* A result for people. */
__attribute__((unused))
static const char *told(long result)
{
	static char texts[4][64];
	static int next;
	char *text = texts[next++ % 4];

	if (result < 0)
		snprintf(text, 64, "-1, %s", strerrorname_np(-result) ?: "an unknown error");
	else
		snprintf(text, 64, "%ld", result);
	return text;
}

__attribute__((unused))
static long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

__attribute__((unused))
static void pause_ms(long ms)
{
	struct timespec time = { ms / 1000, ms % 1000 * 1000000 };

	while (nanosleep(&time, &time) < 0)
		;
}

/* Whether the file has these events now. */
__attribute__((unused))
static bool ready(int fd, short events)
{
	struct pollfd ask = { .fd = fd, .events = events };

	return poll(&ask, 1, 0) == 1 && (ask.revents & events);
}

/* Whether it has them in time. */
__attribute__((unused))
static bool becomes(int fd, short events)
{
	struct pollfd ask = { .fd = fd, .events = events };

	return poll(&ask, 1, SOON) == 1 && (ask.revents & events);
}

/* Whether these events go away in time: an event of the past may take a moment to be seen. */
__attribute__((unused))
static bool ceases(int fd, short events)
{
	for (long end = now_ms() + GRACE * 20; now_ms() < end; pause_ms(1))
		if (!ready(fd, events))
			return true;
	return false;
}

/* Opens the device. */
__attribute__((unused))
static int fifo(int flags)
{
	int fd = open(node, flags | O_CLOEXEC);

	if (fd < 0) {
		doing("open %s", node);
		fail("a descriptor", "-1, %s", strerrorname_np(errno));
	}
	return fd;
}

/* Reads until these many bytes have come; a device may take a moment to give them back. How many came, also if they are more or fewer. */
__attribute__((unused))
static size_t take(size_t count)
{
	static char bytes[65536];
	int fd = fifo(O_RDWR | O_NONBLOCK);
	struct pollfd ask = { .fd = fd, .events = POLLIN };
	size_t total = 0;
	ssize_t got;

	while (total < ENDLESS && poll(&ask, 1, total < count ? SOON : GRACE) == 1 && (got = read(fd, bytes, sizeof(bytes))) > 0)
		total += got;
	close(fd);
	return total;
}

/* Reads all there is. */
__attribute__((unused))
static size_t drain(void)
{
	return take(0);
}

/* Writes until the FIFO is full, in pieces of this many bytes; how many it took. */
__attribute__((unused))
static size_t fill_by(size_t piece)
{
	static char bytes[65536];
	int fd = fifo(O_RDWR | O_NONBLOCK);
	size_t total = 0;
	ssize_t got = 0;

	memset(bytes, 'f', sizeof(bytes));
	while (total < ENDLESS && (got = write(fd, bytes, piece)) > 0)
		total += got;
	if (total >= ENDLESS || got == 0 || errno != EAGAIN) {
		doing("write with O_NONBLOCK until the FIFO is full");
		if (total >= ENDLESS)
			fail("-1, EAGAIN at its capacity", "%zu bytes were taken", total);
		fail("-1, EAGAIN at its capacity", "%s after %zu bytes", told(got < 0 ? -errno : got), total);
	}
	close(fd);
	return total;
}

__attribute__((unused))
static size_t fill(void)
{
	return fill_by(4096);
}

static void on_signal(int signal)
{
	(void)signal;
}

static struct call *begin(long number, int fd, size_t count)
{
	struct call *call = &shared->calls[shared->count++];
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = restart_flag };
	pid_t pid;

	call->number = number;
	call->fd = fd;
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		sigaction(SIGUSR1, &action, NULL);
		call->result = kernel(syscall(number, fd, call->data, count));
		_exit(0);
	}
	/* Not by the child, which shares the memory. */
	call->pid = pid;
	return call;
}

/* Starts read(fd, …, count) in another process. */
__attribute__((unused))
static struct call *begin_read(int fd, size_t count)
{
	return begin(SYS_read, fd, count);
}

/* Starts write(fd, …, count) of this byte in another process. */
__attribute__((unused))
static struct call *begin_write(int fd, size_t count, char byte)
{
	memset(shared->calls[shared->count].data, byte, count);
	return begin(SYS_write, fd, count);
}

/* Whether it has returned. */
__attribute__((unused))
static bool returned(struct call *call)
{
	siginfo_t info = { 0 };

	return waitid(P_PID, call->pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == call->pid;
}

/* Waits until the process sleeps in its call. False if the call returns instead, or goes on running. */
__attribute__((unused))
static bool sleeps(struct call *call)
{
	char path[64], line[128];

	snprintf(path, sizeof(path), "/proc/%d/syscall", call->pid);
	for (long end = now_ms() + SOON / 4; now_ms() < end && !returned(call); pause_ms(1)) {
		int fd = open(path, O_RDONLY);
		ssize_t got = read(fd, line, sizeof(line) - 1);
		long number = -1;
		unsigned long first = 0;

		close(fd);
		line[got > 0 ? got : 0] = 0;
		/* "running" while it is not blocked. */
		if (sscanf(line, "%ld 0x%lx", &number, &first) == 2 && number == call->number && (int)first == call->fd)
			return true;
	}
	return false;
}

/* What became of a call that should sleep, for people. */
__attribute__((unused))
static const char *state(struct call *call)
{
	static char text[80];

	if (!returned(call))
		return "the call neither returned nor slept: it kept its CPU busy";
	snprintf(text, sizeof(text), "the call returned %s", told(call->result));
	return text;
}

/* Waits for the end of a call. False if it does not return in time. */
__attribute__((unused))
static bool returns(struct call *call)
{
	int fd = syscall(SYS_pidfd_open, call->pid, 0);
	struct pollfd ask = { .fd = fd, .events = POLLIN };
	bool ended = poll(&ask, 1, SOON) == 1;

	close(fd);
	return ended;
}

/* The result of a call that must return now. */
__attribute__((unused))
static long result(struct call *call, const char *expected)
{
	if (!returns(call))
		fail(expected, "the call was still waiting after %d s", SOON / 1000);
	return call->result;
}

/* Blocks a signal, so that it can be waited for. */
__attribute__((unused))
static void hold(int signal)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, signal);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

/* Waits for a signal that hold() has blocked; false if it does not come within these milliseconds. */
__attribute__((unused))
static bool comes(int signal, long ms, siginfo_t *info)
{
	struct timespec time = { ms / 1000, ms % 1000 * 1000000 };
	siginfo_t unused;
	sigset_t set;
	int got;

	sigemptyset(&set);
	sigaddset(&set, signal);
	do
		got = sigtimedwait(&set, info ? info : &unused, &time);
	while (got < 0 && errno == EINTR);
	return got == signal;
}

/* Asks for SIGIO, to this process, when something happens to the file. */
__attribute__((unused))
static void ask_signals(int fd)
{
	long got;

	fcntl(fd, F_SETOWN, getpid());
	got = kernel(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_ASYNC));
	if (got < 0) {
		doing("fcntl(F_SETFL, O_ASYNC)");
		fail("0", "%s", told(got));
	}
}

/* An empty FIFO to begin with, whatever the rule before has left; not for a rule that defines AS_IT_IS. */
__attribute__((unused))
static void begin_empty(void)
{
	int fd = fifo(O_RDWR | O_NONBLOCK);

	ioctl(fd, FIFO_CLEAR, 0);
	if (ready(fd, POLLIN))
		drain();
	close(fd);
}

/* Ends what is left of the rule; false if a process does not end. */
static bool ends(pid_t group)
{
	for (long end = now_ms() + SOON / 2; now_ms() < end; pause_ms(2)) {
		kill(-group, SIGKILL);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		if (waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD)
			return true;
	}
	return false;
}

int main(int argc, char **argv)
{
	const char *device = getenv("DEVICE"), *limit = getenv("RULE_LIMIT"), *times = getenv("GLOBALFIFO_PATIENCE");
	int seconds = limit ? atoi(limit) : 45, status = 0;
	struct pollfd ask = { .events = POLLIN };
	pid_t pid;

	node = argc > 1 ? argv[1] : device ? device : "/dev/globalfifo";
	patience = times && atoi(times) > 0 ? atoi(times) : 1;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	pid = fork();
	if (pid == 0) {
		setpgid(0, 0);
		strcpy(shared->done, "empty the FIFO to begin with: FIFO_CLEAR; then, while poll() says POLLIN, read() with O_NONBLOCK, which "
		       "must not wait (read.nonblock)");
#ifndef AS_IT_IS
		begin_empty();
#endif
		shared->done[0] = 0;
		rule();
		verdict(0);
	}
	setpgid(pid, pid);
	ask.fd = syscall(SYS_pidfd_open, pid, 0);
	if (poll(&ask, 1, seconds * 1000 * patience) != 1) {
		printf("done: %s\nexpected: an end of the rule within %d s\nseen: a call that still waits\n", shared->done, seconds * patience);
		status = 1;
	} else {
		waitpid(pid, &status, 0);
		if (WIFSIGNALED(status)) {
			printf("done: %s\nexpected: an end of the rule\nseen: it was killed by signal %d\n", shared->done, WTERMSIG(status));
			status = 1;
		} else {
			status = WEXITSTATUS(status);
		}
	}
	if (!ends(pid)) {
		printf("seen: a process in a call of the driver that SIGKILL does not end\n");
		status = 3;
	}
	return status;
}
#endif
