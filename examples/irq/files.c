// SPDX-License-Identifier: GPL-2.0-only
/*
 * The users' side of a FIFO: read, write, poll, SIGIO, io_submit(2), ioctl. Must not know queues.
 *
 * fifo_unlock() notifies: tasks in read, write and poll by a wake-up, files with O_ASYNC by SIGIO,
 * one read of io_submit(2) by its completion. Every change of the state ends there, also that of an
 * interrupt, so none can forget a notification.
 *
 * Left out: asynchronous writes (io_submit waits for space), a second asynchronous read at the same
 * time (EAGAIN), fsync, splice.
 */
#include <linux/aio.h>
#include <linux/cred.h>
#include <linux/globalfifo.h>
#include <linux/highmem.h>
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/uio.h>
#include <asm/ioctls.h>
#include "fifo.h"

/* Poll events that hold: a pure function of the state. */
static __poll_t fifo_events(const struct fifo *fifo)
{
	__poll_t events = 0;

	if (fifo->life != FIFO_LIVE)
		return fifo->life == FIFO_SUSPENDED ? 0 : EPOLLERR | EPOLLHUP;
	if (fifo_level(fifo) || fifo_ended(fifo))
		events |= FIFO_DATA;
	if (fifo->flags & FIFO_STATE_HANGUP)
		return events | EPOLLHUP;
	if (fifo->flags & FIFO_STATE_RX_END)
		events |= EPOLLRDHUP;
	return fifo_credit(fifo) ? events | FIFO_SPACE : events;
}

/* Fills the buffer of the asynchronous read, if there is something to complete it with. */
static ssize_t fifo_fill(struct fifo *fifo)
{
	size_t count = min_t(u64, fifo_level(fifo), fifo->aio.len);

	if (!fifo->aio.armed)
		return -EAGAIN;
	if (fifo->aio.cancelled)
		return -ECANCELED;
	if (fifo->life != FIFO_LIVE || !count)
		return fifo_ended(fifo) ? 0 : fifo_error(fifo);
	memcpy_to_page(fifo->aio.page, fifo->aio.offset,
		       fifo->rx.data + (fifo->consumed - fifo->start), count);
	fifo_consume(fifo, count);
	return count;
}

/* Ends a change of the state, and notifies of the events that rose. */
void fifo_unlock(struct fifo *fifo, unsigned long flags)
{
	ssize_t filled = fifo_fill(fifo);
	__poll_t now = fifo_events(fifo), news = fifo->edges | (now & ~fifo->ready);
	struct fifo_aio aio = fifo->aio;

	WRITE_ONCE(fifo->ready, now);
	fifo->edges = 0;
	if (filled != -EAGAIN)
		fifo->aio = (struct fifo_aio){};
	spin_unlock_irqrestore(&fifo->lock, flags);
	if (filled != -EAGAIN) {
		unpin_user_page(aio.page);
		aio.iocb->ki_complete(aio.iocb, filled);
	}
	if (!news)
		return;
	wake_up_poll(&fifo->wait, news);
	if (news & EPOLLIN)
		kill_fasync(&fifo->async, SIGIO, POLL_IN);
	if (news & EPOLLOUT)
		kill_fasync(&fifo->async, SIGIO, POLL_OUT);
	if (news & EPOLLHUP)
		kill_fasync(&fifo->async, SIGIO, POLL_HUP);
}

/* Reads what there is. Bytes that the device discards or sends again meanwhile do not count. */
static ssize_t fifo_read(struct fifo *fifo, struct iov_iter *to)
{
	unsigned int posts;
	u64 pos, offset;
	size_t count;

	ACQUIRE(mutex_intr, turn)(&fifo->reading);
	if (ACQUIRE_ERR(mutex_intr, &turn))
		return -ERESTARTSYS;
	for (;;) {
		scoped_guard(fifo, fifo) {
			posts = fifo->posts;
			pos = fifo->consumed;
			offset = pos - fifo->start;
			count = min_t(u64, fifo_level(fifo), iov_iter_count(to));
			if (fifo->life != FIFO_LIVE || !count)
				return fifo_ended(fifo) ? 0 : fifo_error(fifo);
		}
		count = copy_to_iter(fifo->rx.data + offset, count, to);
		guard(fifo)(fifo);
		if (fifo->life == FIFO_LIVE && fifo->posts == posts && fifo->consumed == pos) {
			fifo_consume(fifo, count);
			return count ?: -EFAULT;
		}
		iov_iter_revert(to, count);
	}
}

/* Writes what fits, in one piece. */
static ssize_t fifo_write(struct fifo *fifo, struct iov_iter *from)
{
	ssize_t done = 0, count;

	ACQUIRE(mutex_intr, turn)(&fifo->writing);
	if (ACQUIRE_ERR(mutex_intr, &turn))
		return -ERESTARTSYS;
	while (iov_iter_count(from)) {
		/* Not a wait for space: the device takes a message at once (DEV-10). */
		if (wait_event_killable_timeout(fifo->idle, !READ_ONCE(fifo->tx_busy) ||
						READ_ONCE(fifo->life) != FIFO_LIVE,
						FIFO_PATIENCE) <= 0)
			return done ?: -EIO;
		scoped_guard(fifo, fifo) {
			count = min3(fifo_credit(fifo), iov_iter_count(from), FIFO_CHUNK);
			if (fifo->life == FIFO_LIVE && (fifo->flags & FIFO_STATE_HANGUP))
				return done ?: -EPIPE;
			if (fifo->life != FIFO_LIVE || !count)
				return done ?: fifo_error(fifo);
		}
		count = copy_from_iter(fifo->tx.data, count, from);
		if (!count)
			return done ?: -EFAULT;
		scoped_guard(fifo, fifo) {
			/* A reset may have come, and taken credit. */
			if (fifo->life == FIFO_LIVE && fifo_credit(fifo) >= count)
				fifo->tx_busy = fifo_send(fifo, &fifo->tx.hdr, count);
			if (!fifo->tx_busy) {
				iov_iter_revert(from, count);
				return done ?: fifo_error(fifo);
			}
		}
		done += count;
	}
	return done;
}

/* Called with a lock that a completion takes, by io_cancel(2) and at exit: the tick completes. */
static int fifo_cancel(struct kiocb *iocb)
{
	struct fifo *fifo = iocb->ki_filp->private_data;

	guard(spinlock_irqsave)(&fifo->lock);
	if (fifo->aio.iocb == iocb) {
		fifo->aio.cancelled = true;
		if (fifo->aio.armed)
			mod_delayed_work(system_percpu_wq, &fifo->tick, 0);
	}
	return 0;
}

/* Keeps a read of io_submit(2), or a page of it, until there is data. */
static ssize_t fifo_defer(struct fifo *fifo, struct kiocb *iocb, struct iov_iter *to)
{
	struct fifo_aio aio = { .iocb = iocb };
	struct page **pages = &aio.page;
	ssize_t len;

	len = iov_iter_extract_pages(to, &pages, PAGE_SIZE, 1, 0, &aio.offset);
	if (len <= 0)
		return len ?: -EFAULT;
	set_page_dirty_lock(aio.page);
	aio.len = len;
	scoped_guard(fifo, fifo) {
		if (!fifo->aio.iocb)
			swap(fifo->aio, aio);
	}
	if (aio.iocb) {
		unpin_user_page(aio.page);
		return -EAGAIN;
	}
	/* From here on it may be cancelled, and only then completed. */
	kiocb_set_cancel_fn(iocb, fifo_cancel);
	guard(fifo)(fifo);
	fifo->aio.armed = true;
	return -EIOCBQUEUED;
}

/* A call: transfers what is possible at once, or waits until something is. */
static ssize_t fifo_call(struct kiocb *iocb, struct iov_iter *iter)
{
	struct file *filp = iocb->ki_filp;
	struct fifo *fifo = filp->private_data;
	bool reads = iov_iter_rw(iter) == READ;
	__poll_t events = EPOLLERR | (reads ? FIFO_DATA : FIFO_SPACE | EPOLLHUP);
	ssize_t ret;

	while (iov_iter_count(iter)) {
		ret = reads ? fifo_read(fifo, iter) : fifo_write(fifo, iter);
		if (ret != -EAGAIN || (iocb->ki_flags & IOCB_NOWAIT) ||
		    (filp->f_flags & O_NONBLOCK))
			return ret;
		if (reads && (iocb->ki_flags & IOCB_AIO_RW))
			return fifo_defer(fifo, iocb, iter);
		if (wait_event_interruptible(fifo->wait, READ_ONCE(fifo->ready) & events))
			return -ERESTARTSYS;
	}
	return 0;
}

static __poll_t fifo_poll(struct file *filp, poll_table *wait)
{
	struct fifo *fifo = filp->private_data;

	poll_wait(filp, &fifo->wait, wait);
	return READ_ONCE(fifo->ready);
}

static long fifo_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	struct fifo *fifo = filp->private_data;
	int err;

	switch (cmd) {
	case FIFO_CLEAR:
	case GLOBALFIFO_IOC_CLEAR:
		scoped_with_creds(filp->f_cred)
			err = file_permission(filp, MAY_WRITE);
		if (err)
			return -EBADF;
		for (;;) {
			err = fifo_clear(fifo);
			if (err != -EAGAIN)
				return err;
			if (wait_event_interruptible(fifo->idle,
						     READ_ONCE(fifo->life) != FIFO_SUSPENDED))
				return -ERESTARTSYS;
		}
	case FIONREAD:
		scoped_guard(fifo, fifo)
			err = fifo_level(fifo);
		return put_user(err, (int __user *)arg);
	default:
		return -ENOTTY;
	}
}

static int fifo_fasync(int fd, struct file *filp, int on)
{
	struct fifo *fifo = filp->private_data;

	return fasync_helper(fd, filp, on, &fifo->async);
}

static int fifo_open(struct inode *inode, struct file *filp)
{
	/* misc_deregister() waits for this function, so the FIFO is there. */
	struct fifo *fifo = container_of(filp->private_data, struct fifo, misc);

	kref_get(&fifo->ref);
	filp->private_data = fifo;
	filp->f_mode |= FMODE_NOWAIT;
	return stream_open(inode, filp);
}

void fifo_free(struct kref *ref)
{
	kfree(container_of(ref, struct fifo, ref));
}

static int fifo_release(struct inode *inode, struct file *filp)
{
	struct fifo *fifo = filp->private_data;

	fifo_fasync(-1, filp, 0);
	kref_put(&fifo->ref, fifo_free);
	return 0;
}

const struct file_operations fifo_fops = {
	.owner = THIS_MODULE,
	.open = fifo_open,
	.release = fifo_release,
	.read_iter = fifo_call,
	.write_iter = fifo_call,
	.poll = fifo_poll,
	.unlocked_ioctl = fifo_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.fasync = fifo_fasync,
};
