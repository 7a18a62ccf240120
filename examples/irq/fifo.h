/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The state of a FIFO, and what device.c and files.c call of each other.
 */
#ifndef FIFO_H
#define FIFO_H

#include <linux/cleanup.h>
#include <linux/fs.h>
#include <linux/kref.h>
#include <linux/miscdevice.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/spinlock.h>
#include <linux/virtio.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include "virtio_fifo.h"

/* Most payload of a message, in bytes. */
#define FIFO_CHUNK	SZ_16K
/* Limit of a wait for the device (DRV-16). */
#define FIFO_PATIENCE	(20 * HZ)

#define FIFO_DATA	(EPOLLIN | EPOLLRDNORM)
#define FIFO_SPACE	(EPOLLOUT | EPOLLWRNORM)

enum fifo_life {
	FIFO_SUSPENDED,		/* being set up or reset: calls wait */
	FIFO_LIVE,
	FIFO_FAILED,		/* EIO until the device is bound anew */
	FIFO_GONE,		/* ENODEV */
};

/* A read of io_submit(2) that waits for data. */
struct fifo_aio {
	struct kiocb *iocb;	/* NULL without one */
	struct page *page;	/* the buffer, pinned: an interrupt can fill it */
	size_t offset, len;
	bool armed, cancelled;
};

/* Positions count the bytes of a stream from its beginning (specification, section 6.1). */
struct fifo {
	struct kref ref;	/* the device's, and one of each open file */
	struct miscdevice misc;
	char name[24];
	struct virtio_device *vdev;
	struct mutex reading, writing;	/* keep the bytes of a call together */
	struct mutex control;	/* one request to the device at a time */

	spinlock_t lock;	/* protects what follows; taken in interrupts */
	enum fifo_life life;
	struct virtqueue *vqs[FIFO_QUEUES];	/* NULL without queues */
	u32 capacity, flags;
	u64 start, received;	/* of the bytes in @rx: begin and end */
	u64 consumed;		/* all below is read or discarded */
	u64 cleared;		/* all below is discarded; older messages may be under way */
	u64 reported;		/* rx_consumed that the device knows */
	u64 end;		/* of the rx stream, with STATE_HANGUP or STATE_RX_END */
	u64 sent, limit;	/* of the tx stream */
	unsigned int posts;	/* how often @rx was given to the device */
	bool rx_busy, tx_busy, ack_busy;	/* the device has the buffer */
	__poll_t ready;		/* poll events that hold */
	__poll_t edges;		/* events to notify of although they held before */
	struct fifo_aio aio;

	wait_queue_head_t wait;	/* for @ready */
	wait_queue_head_t idle;	/* for a busy flag to fall, and for a change of @life */
	struct fasync_struct *async;
	struct delayed_work tick;
	struct completion answered;
	unsigned int answer_len;

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

/* device.c */
u64 fifo_level(const struct fifo *fifo);
u64 fifo_credit(const struct fifo *fifo);
bool fifo_ended(const struct fifo *fifo);
int fifo_error(const struct fifo *fifo);
bool fifo_send(struct fifo *fifo, struct virtio_fifo_tx_hdr *hdr, size_t len);
void fifo_consume(struct fifo *fifo, size_t count);
int fifo_clear(struct fifo *fifo);

/* files.c */
extern const struct file_operations fifo_fops;
void fifo_unlock(struct fifo *fifo, unsigned long flags);
void fifo_free(struct kref *ref);

/* guard(fifo)(fifo): the state may be changed to the end of the block, which then notifies. */
DEFINE_LOCK_GUARD_1(fifo, struct fifo, spin_lock_irqsave(&_T->lock->lock, _T->flags),
		    fifo_unlock(_T->lock, _T->flags), unsigned long flags)

#endif
