// SPDX-License-Identifier: GPL-2.0-only
/*
 * Splice that does not keep the pipe locked while it waits for the file.
 *
 * copy_splice_read() and iter_file_splice_write() call read_iter and write_iter with the pipe's
 * mutex held. A file that waits in there for data or space keeps everybody else from the pipe, and
 * they wait for that mutex uninterruptibly. Here the file is only ever asked not to wait; the wait
 * (@wait, which checks again) comes without the pipe's lock.
 */
#include <linux/bvec.h>
#include <linux/fs.h>
#include <linux/pipe_fs_i.h>
#include <linux/sched/signal.h>
#include <linux/splice.h>
#include <linux/uio.h>

#include "bindings.h"

static void release_page(struct splice_pipe_desc *spd, unsigned int i)
{
	put_page(spd->pages[i]);
}

/* One read that does not wait, into new pages for the pipe, which is locked and has room. */
static ssize_t read_to_pipe(struct file *in, struct pipe_inode_info *pipe, size_t len)
{
	struct page *pages[PIPE_DEF_BUFFERS] = {};
	struct partial_page partial[PIPE_DEF_BUFFERS] = {};
	struct bio_vec bvecs[PIPE_DEF_BUFFERS];
	struct splice_pipe_desc spd = {
		.pages = pages,
		.partial = partial,
		.nr_pages_max = ARRAY_SIZE(pages),
		.ops = &nosteal_pipe_buf_ops,
		.spd_release = release_page,
	};
	unsigned int used = pipe_buf_usage(pipe);
	unsigned int room = pipe->max_usage > used ? pipe->max_usage - used : 0;
	unsigned int wanted, got, i;
	struct iov_iter to;
	struct kiocb kiocb;
	ssize_t ret, left;

	len = min_t(size_t, len, min_t(size_t, room, ARRAY_SIZE(pages)) * PAGE_SIZE);
	wanted = DIV_ROUND_UP(len, PAGE_SIZE);
	if (!wanted)
		return -EAGAIN;

	got = alloc_pages_bulk(GFP_USER | __GFP_ACCOUNT, wanted, pages);
	if (!got)
		return -ENOMEM;

	len = min_t(size_t, len, got * PAGE_SIZE);
	for (i = 0; i < got; i++) {
		left = min_t(size_t, PAGE_SIZE, len - i * PAGE_SIZE);
		bvec_set_page(&bvecs[i], pages[i], left, 0);
	}

	iov_iter_bvec(&to, ITER_DEST, bvecs, got, len);
	init_sync_kiocb(&kiocb, in);
	kiocb.ki_flags |= IOCB_NOWAIT;
	ret = in->f_op->read_iter(&kiocb, &to);

	for (left = ret; left > 0; left -= PAGE_SIZE)
		partial[spd.nr_pages++].len = min_t(size_t, left, PAGE_SIZE);
	for (i = spd.nr_pages; i < got; i++)
		put_page(pages[i]);

	return ret > 0 ? splice_to_pipe(pipe, &spd) : ret;
}

/*
 * Waits for room in the pipe, or for the end of its last reader. The pipe is locked on entry and
 * on return.
 */
static int wait_for_room(struct pipe_inode_info *pipe)
{
	int err;

	while (pipe->readers && pipe_is_full(pipe)) {
		pipe_unlock(pipe);
		err = wait_event_interruptible(pipe->wr_wait,
					       !pipe_is_full(pipe) || !READ_ONCE(pipe->readers));
		pipe_lock(pipe);
		if (err)
			return err;
	}
	return 0;
}

ssize_t globalfifo_splice_read(struct file *in, struct pipe_inode_info *pipe, size_t len,
			       unsigned int flags, int (*wait)(struct file *, bool))
{
	/* The pipe of sendfile() belongs to the task: nobody else uses it, and it is not locked. */
	bool locked = pipe != current->splice_pipe;
	bool nowait = (flags & SPLICE_F_NONBLOCK) || (in->f_flags & O_NONBLOCK);
	ssize_t ret;
	int err;

	for (;;) {
		/* Before anything is read: it could not be given back. */
		if (!pipe->readers) {
			send_sig(SIGPIPE, current, 0);
			return -EPIPE;
		}
		ret = read_to_pipe(in, pipe, len);
		if (ret != -EAGAIN || nowait)
			return ret;

		if (locked)
			pipe_unlock(pipe);
		err = wait(in, false);
		if (locked)
			pipe_lock(pipe);
		if (!err && locked)
			err = wait_for_room(pipe);
		if (err)
			return err;
	}
}

/* Writes what a pipe buffer holds, or as much as fits at once. */
static int write_from_pipe(struct pipe_inode_info *pipe, struct pipe_buffer *buf,
			   struct splice_desc *sd)
{
	struct file *out = sd->u.file;
	struct iov_iter from;
	struct kiocb kiocb;
	struct bio_vec bvec;

	bvec_set_page(&bvec, buf->page, sd->len, buf->offset);
	iov_iter_bvec(&from, ITER_SOURCE, &bvec, 1, sd->len);
	init_sync_kiocb(&kiocb, out);
	kiocb.ki_flags |= IOCB_NOWAIT;
	/* That waits: it comes once the pipe is unlocked. */
	kiocb.ki_flags &= ~IOCB_DSYNC;
	return out->f_op->write_iter(&kiocb, &from);
}

ssize_t globalfifo_splice_write(struct pipe_inode_info *pipe, struct file *out, size_t len,
				unsigned int flags, int (*wait)(struct file *, bool))
{
	bool nowait = (flags & SPLICE_F_NONBLOCK) || (out->f_flags & O_NONBLOCK);
	struct splice_desc sd = {
		.total_len = len,
		.flags = flags,
		.u.file = out,
	};
	ssize_t ret;
	int err;

	for (;;) {
		/* First the file: the wait for the pipe, below, lets others have its lock. */
		err = wait(out, nowait);
		if (err)
			return err;

		pipe_lock(pipe);
		ret = __splice_from_pipe(pipe, &sd, write_from_pipe);
		pipe_unlock(pipe);
		if (ret != -EAGAIN || nowait)
			break;
	}
	if (ret > 0 && (out->f_flags & O_DSYNC)) {
		err = vfs_fsync(out, 1);
		if (err)
			return err;
	}
	return ret;
}
