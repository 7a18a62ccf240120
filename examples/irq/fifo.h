/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The state of a FIFO, what follows from it, and how it is locked.
 */
#ifndef FIFO_H
#define FIFO_H

#include <linux/cleanup.h>
#include <linux/miscdevice.h>
#include <linux/poll.h>
#include <linux/virtio.h>
#include <linux/workqueue.h>
#include "virtio_fifo.h"

/* Request of ioctl(2): the number of textbooks, which is not encoded by _IO(). */
#define FIFO_CLEAR	0x1
/* Most payload of a message, in bytes. */
#define FIFO_CHUNK	SZ_16K
/* Limit of a wait for the device (DRV-16). */
#define FIFO_PATIENCE	(20 * HZ)
/* Period of the check for used buffers whose interrupt is lost (DRV-18). */
#define FIFO_TICK	HZ

#define FIFO_DATA	(EPOLLIN | EPOLLRDNORM)
#define FIFO_SPACE	(EPOLLOUT | EPOLLWRNORM)

/* Positions count the bytes of a stream from its beginning (specification, section 6.1). */
struct fifo {
	struct kref ref;	/* the device's, and one of each open file */
	struct miscdevice misc;
	char name[24];
	struct virtio_device *vdev;
	struct mutex turn[2];	/* of writers, of readers: keep the bytes of a call together */
	struct mutex control;	/* one request to the device at a time */

	spinlock_t lock;	/* protects what follows; taken in interrupts */
	int error;		/* EIO: the device broke the specification; ENODEV: it is gone */
	struct virtqueue *vqs[FIFO_QUEUES];
	u32 capacity, flags;
	u64 start, received;	/* of the bytes in @rx: begin and end */
	u64 consumed;		/* all below is read or discarded */
	u64 cleared;		/* all below is discarded; older messages may be under way */
	u64 reported;		/* rx_consumed that the device knows */
	u64 end;		/* of the rx stream, with STATE_HANGUP or STATE_RX_END */
	u64 sent, limit;	/* of the tx stream */
	unsigned int answer_len;	/* bytes of @resp; 0: not yet */
	bool rx_busy, tx_busy, ack_busy;	/* the device has the buffer */
	__poll_t ready;		/* poll events that hold */
	__poll_t edges;		/* events to notify of although they held before */
	struct fifo_aio {	/* a read of io_submit(2) that waits for data */
		struct kiocb *iocb;	/* NULL without one */
		struct page *page;	/* the buffer, pinned: an interrupt can fill it */
		size_t offset;
		ssize_t len;
		bool armed, cancelled;
	} aio;

	wait_queue_head_t wait;	/* for @ready */
	wait_queue_head_t idle;	/* for a busy flag to fall, and for an answer */
	struct fasync_struct *async;
	struct delayed_work tick;

	/* Memory that the device reads and writes. */
	struct virtio_fifo_ctrl_req req;
	struct virtio_fifo_ctrl_resp resp;
	struct virtio_fifo_state event;
	struct virtio_fifo_tx_hdr ack;
	struct {
		struct virtio_fifo_tx_hdr hdr;
		u8 data[FIFO_CHUNK];
	} tx;
	struct {
		struct virtio_fifo_rx_hdr hdr;
		u8 data[FIFO_CHUNK];
	} rx;
};

/* Bytes that may be sent (DRV-6). */
static inline u64 fifo_credit(const struct fifo *fifo)
{
	bool loopback = fifo->flags & FIFO_STATE_LOOPBACK;
	u64 limit = loopback ? fifo->consumed + fifo->capacity : fifo->limit;

	return limit > fifo->sent ? limit - fifo->sent : 0;
}

/* Poll events that hold: a pure function of the state. */
static inline __poll_t fifo_events(const struct fifo *fifo)
{
	bool is_end = fifo->flags & (FIFO_STATE_HANGUP | FIFO_STATE_RX_END);
	__poll_t events = 0;

	if (fifo->error)
		return EPOLLERR | EPOLLHUP;
	if (fifo->received > fifo->consumed || (is_end && fifo->consumed >= fifo->end))
		events |= FIFO_DATA;
	if (fifo->flags & FIFO_STATE_HANGUP)
		return events | EPOLLHUP;
	if (is_end)
		events |= EPOLLRDHUP;
	return fifo_credit(fifo) ? events | FIFO_SPACE : events;
}

/* Bytes that a read of @count gets now: 0 at the end of file (DRV-13), an error without any. */
static inline ssize_t fifo_readable(const struct fifo *fifo, size_t count)
{
	if (fifo->error)
		return fifo->error;
	if (fifo->received > fifo->consumed)
		return min_t(u64, fifo->received - fifo->consumed, count);
	return fifo_events(fifo) & FIFO_DATA ? 0 : -EAGAIN;
}

/* Drops all bytes below @pos, also those that have not come yet (DRV-10, DRV-15). */
static inline void fifo_discard(struct fifo *fifo, u64 pos)
{
	fifo->cleared = max(fifo->cleared, pos);
	fifo->received = max(fifo->received, pos);
	fifo->consumed = max(fifo->consumed, pos);
	fifo->reported = max(fifo->reported, pos);
}

static void fifo_unlock(struct fifo *fifo, unsigned long flags);

/* guard(fifo)(fifo): the state may be changed to the end of the block, which then notifies. */
DEFINE_LOCK_GUARD_1(fifo, struct fifo, spin_lock_irqsave(&_T->lock->lock, _T->flags),
		    fifo_unlock(_T->lock, _T->flags), unsigned long flags)

#endif
