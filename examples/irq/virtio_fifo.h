/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause */
/*
 * virtio-fifo on the wire, as docs/virtio-fifo.md specifies it, and how a driver recognises such a
 * device. Must not know the driver.
 */
#ifndef VIRTIO_FIFO_H
#define VIRTIO_FIFO_H

#include <linux/bits.h>
#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/virtio_config.h>

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

/*
 * For .validate of a driver: -ENODEV for a device that is not for it. Another kind of device, which
 * may have the same id, is no error (DRV-19); another version is logged (DRV-20).
 */
static inline int virtio_fifo_validate(struct virtio_device *vdev)
{
	u32 magic, version, count;

	if (!vdev->config->get)
		return -ENODEV;
	virtio_cread_le(vdev, struct virtio_fifo_config, magic, &magic);
	if (magic != FIFO_MAGIC)
		return -ENODEV;
	virtio_cread_le(vdev, struct virtio_fifo_config, version, &version);
	if (version != FIFO_VERSION) {
		dev_err(&vdev->dev, "not used: version %u of the device's layout, not %u\n",
			version, FIFO_VERSION);
		return -ENODEV;
	}
	virtio_cread_le(vdev, struct virtio_fifo_config, num_fifos, &count);
	if (!__virtio_test_bit(vdev, VIRTIO_F_VERSION_1) || !count || count > FIFO_MAX_FIFOS)
		return -ENODEV;
	return 0;
}

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
