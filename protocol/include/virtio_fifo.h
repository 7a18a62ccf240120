/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause OR GPL-2.0-only */
/*
 * The wire format of virtio-fifo (docs/virtio-fifo.md), for devices and drivers in C. Every field is
 * little-endian. protocol/tests/header.rs holds it against src/virtio_fifo.rs.
 */
#ifndef VIRTIO_FIFO_H
#define VIRTIO_FIFO_H

#ifdef __KERNEL__
#include <linux/types.h>
#define VIRTIO_FIFO_LE32 __le32
#define VIRTIO_FIFO_LE64 __le64
#else
#include <stdint.h>
#define VIRTIO_FIFO_LE32 uint32_t
#define VIRTIO_FIFO_LE64 uint64_t
#endif

/* VIRTIO_ID_DMABUF: the magic tells the two kinds of device apart. */
#define VIRTIO_FIFO_DEFAULT_DEVICE_ID 37

/* The bytes "FIFO". */
#define VIRTIO_FIFO_CONFIG_MAGIC 0x4f464946
#define VIRTIO_FIFO_CONFIG_VERSION 1

#define VIRTIO_FIFO_CONTROL_QUEUE 0
#define VIRTIO_FIFO_EVENT_QUEUE 1
#define VIRTIO_FIFO_FIRST_RX_QUEUE 2
#define VIRTIO_FIFO_RX_QUEUE(fifo) (2 + 2 * (fifo))
#define VIRTIO_FIFO_TX_QUEUE(fifo) (3 + 2 * (fifo))

#define VIRTIO_FIFO_MAX_FIFOS 31
#define VIRTIO_FIFO_MAX_CAPACITY 16777216
#define VIRTIO_FIFO_MAX_POSITION 9223372036854775808

#define VIRTIO_FIFO_STATE_LOOPBACK 1
#define VIRTIO_FIFO_STATE_HANGUP 2
#define VIRTIO_FIFO_STATE_ERROR 4
#define VIRTIO_FIFO_STATE_RX_END 8

#define VIRTIO_FIFO_CTRL_GET_STATE 1
#define VIRTIO_FIFO_CTRL_CLEAR 2

#define VIRTIO_FIFO_CTRL_OK 0
#define VIRTIO_FIFO_CTRL_UNSUPPORTED 1
#define VIRTIO_FIFO_CTRL_BAD_FIFO 2
#define VIRTIO_FIFO_CTRL_BAD_COUNTER 3

struct virtio_fifo_config {
	VIRTIO_FIFO_LE32 magic;
	VIRTIO_FIFO_LE32 version;
	VIRTIO_FIFO_LE32 num_fifos;
};

struct virtio_fifo_tx_hdr {
	VIRTIO_FIFO_LE64 offset;
	VIRTIO_FIFO_LE64 rx_consumed;
};

struct virtio_fifo_rx_hdr {
	VIRTIO_FIFO_LE64 offset;
	VIRTIO_FIFO_LE64 rx_floor;
	VIRTIO_FIFO_LE64 tx_limit;
};

struct virtio_fifo_state {
	VIRTIO_FIFO_LE32 fifo;
	VIRTIO_FIFO_LE32 flags;
	VIRTIO_FIFO_LE32 capacity;
	VIRTIO_FIFO_LE32 reserved;
	VIRTIO_FIFO_LE64 rx_floor;
	VIRTIO_FIFO_LE64 rx_end;
	VIRTIO_FIFO_LE64 tx_accepted;
	VIRTIO_FIFO_LE64 tx_limit;
};

struct virtio_fifo_ctrl_req {
	VIRTIO_FIFO_LE32 type;
	VIRTIO_FIFO_LE32 fifo;
	VIRTIO_FIFO_LE64 tx_sent;
};

struct virtio_fifo_ctrl_resp {
	VIRTIO_FIFO_LE32 status;
	VIRTIO_FIFO_LE32 reserved;
	struct virtio_fifo_state state;
};

#endif
