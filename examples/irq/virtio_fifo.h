/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause */
/*
 * virtio-fifo on the wire, as docs/virtio-fifo.md specifies it. Must not know the driver.
 */
#ifndef VIRTIO_FIFO_H
#define VIRTIO_FIFO_H

#include <linux/bits.h>
#include <linux/sizes.h>
#include <linux/types.h>

/* VIRTIO_ID_DMABUF of Linux: the magic tells the two kinds of device apart. */
#define VIRTIO_ID_FIFO		37
/* The bytes "FIFO". */
#define FIFO_MAGIC		0x4f464946
#define FIFO_VERSION		1
#define FIFO_MAX_FIFOS		31
#define FIFO_MAX_CAPACITY	SZ_16M
/* Every position in a stream is below this. */
#define FIFO_MAX_POSITION	BIT_ULL(63)

/* Virtqueues of FIFO 0. */
enum { FIFO_CONTROL, FIFO_EVENT, FIFO_RX, FIFO_TX, FIFO_QUEUES };

struct virtio_fifo_config {
	__le32 magic;
	__le32 version;
	__le32 num_fifos;
};

struct virtio_fifo_tx_hdr {
	__le64 offset;
	__le64 rx_consumed;
};

struct virtio_fifo_rx_hdr {
	__le64 offset;
	__le64 rx_floor;
	__le64 tx_limit;
};

#define FIFO_STATE_LOOPBACK	1
#define FIFO_STATE_HANGUP	2
#define FIFO_STATE_ERROR		4
#define FIFO_STATE_RX_END	8

struct virtio_fifo_state {
	__le32 fifo;
	__le32 flags;
	__le32 capacity;
	__le32 reserved;
	__le64 rx_floor;
	__le64 rx_end;
	__le64 tx_accepted;
	__le64 tx_limit;
};

#define FIFO_CTRL_GET_STATE	1
#define FIFO_CTRL_CLEAR		2

struct virtio_fifo_ctrl_req {
	__le32 type;
	__le32 fifo;
	__le64 tx_sent;
};

struct virtio_fifo_ctrl_resp {
	__le32 status;
	__le32 reserved;
	struct virtio_fifo_state state;
};

#endif
