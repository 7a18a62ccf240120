/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tracepoints of the driver, the group globalfifo of tracefs; docs/tracing.md explains each.
 *
 * Fields are named as in the specification (docs/virtio-fifo.md). A position is one of the stream
 * that the event is of: rx for what is received and read, tx for what is written, sent and
 * accepted.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM globalfifo

#if !defined(GLOBALFIFO_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define GLOBALFIFO_TRACE_H

#include <linux/device.h>
#include <linux/eventpoll.h>
#include <linux/tracepoint.h>

#define globalfifo_show_events(events)				\
	__print_flags(events, "|",				\
		      { (__force u32)EPOLLIN, "IN" },		\
		      { (__force u32)EPOLLOUT, "OUT" },		\
		      { (__force u32)EPOLLERR, "ERR" },		\
		      { (__force u32)EPOLLHUP, "HUP" },		\
		      { (__force u32)EPOLLRDNORM, "RDNORM" },	\
		      { (__force u32)EPOLLWRNORM, "WRNORM" },	\
		      { (__force u32)EPOLLRDHUP, "RDHUP" })

#define globalfifo_show_band(band)		\
	__print_symbolic(band,			\
			 { POLL_IN, "POLL_IN" },	\
			 { POLL_OUT, "POLL_OUT" },	\
			 { POLL_ERR, "POLL_ERR" },	\
			 { POLL_HUP, "POLL_HUP" })

#define globalfifo_show_want(want)		\
	__print_symbolic(want,			\
			 { 0, "data" },		\
			 { 1, "space" },	\
			 { 2, "acceptance" })

TRACE_EVENT(globalfifo_interrupt,
	    TP_PROTO(const struct device *dev, u32 queue),
	    TP_ARGS(dev, queue),
	    TP_STRUCT__entry(__string(device, dev_name(dev))
			     __field(u32, queue)),
	    TP_fast_assign(__assign_str(device);
			   __entry->queue = queue;),
	    TP_printk("%s queue=%u", __get_str(device), __entry->queue)
);

/* So many messages, up to a position. */
DECLARE_EVENT_CLASS(globalfifo_messages,
		    TP_PROTO(const struct device *dev, u16 fifo, u64 messages, u64 position),
		    TP_ARGS(dev, fifo, messages, position),
		    TP_STRUCT__entry(__string(device, dev_name(dev))
				     __field(u16, fifo)
				     __field(u64, messages)
				     __field(u64, position)),
		    TP_fast_assign(__assign_str(device);
				   __entry->fifo = fifo;
				   __entry->messages = messages;
				   __entry->position = position;),
		    TP_printk("%s fifo=%u messages=%llu position=%llu", __get_str(device),
			      __entry->fifo, __entry->messages, __entry->position)
);

/* Taken from the rx queue. */
DEFINE_EVENT(globalfifo_messages, globalfifo_receive,
	     TP_PROTO(const struct device *dev, u16 fifo, u64 messages, u64 position),
	     TP_ARGS(dev, fifo, messages, position)
);

/* Posted to the tx queue; the device is notified next. */
DEFINE_EVENT(globalfifo_messages, globalfifo_send,
	     TP_PROTO(const struct device *dev, u16 fifo, u64 messages, u64 position),
	     TP_ARGS(dev, fifo, messages, position)
);

/* Bytes of a call or a request, from a position on. */
DECLARE_EVENT_CLASS(globalfifo_bytes,
		    TP_PROTO(const struct device *dev, u16 fifo, u64 position, u64 bytes),
		    TP_ARGS(dev, fifo, position, bytes),
		    TP_STRUCT__entry(__string(device, dev_name(dev))
				     __field(u16, fifo)
				     __field(u64, position)
				     __field(u64, bytes)),
		    TP_fast_assign(__assign_str(device);
				   __entry->fifo = fifo;
				   __entry->position = position;
				   __entry->bytes = bytes;),
		    TP_printk("%s fifo=%u position=%llu bytes=%llu", __get_str(device),
			      __entry->fifo, __entry->position, __entry->bytes)
);

DEFINE_EVENT(globalfifo_bytes, globalfifo_read,
	     TP_PROTO(const struct device *dev, u16 fifo, u64 position, u64 bytes),
	     TP_ARGS(dev, fifo, position, bytes)
);

DEFINE_EVENT(globalfifo_bytes, globalfifo_write,
	     TP_PROTO(const struct device *dev, u16 fifo, u64 position, u64 bytes),
	     TP_ARGS(dev, fifo, position, bytes)
);

/* All below the position is the device's. */
TRACE_EVENT(globalfifo_accept,
	    TP_PROTO(const struct device *dev, u16 fifo, u64 tx_accepted),
	    TP_ARGS(dev, fifo, tx_accepted),
	    TP_STRUCT__entry(__string(device, dev_name(dev))
			     __field(u16, fifo)
			     __field(u64, tx_accepted)),
	    TP_fast_assign(__assign_str(device);
			   __entry->fifo = fifo;
			   __entry->tx_accepted = tx_accepted;),
	    TP_printk("%s fifo=%u tx_accepted=%llu", __get_str(device), __entry->fifo,
		      __entry->tx_accepted)
);

/* The device takes bytes up to a higher limit. */
TRACE_EVENT(globalfifo_credit,
	    TP_PROTO(const struct device *dev, u16 fifo, u64 tx_limit, u64 credit),
	    TP_ARGS(dev, fifo, tx_limit, credit),
	    TP_STRUCT__entry(__string(device, dev_name(dev))
			     __field(u16, fifo)
			     __field(u64, tx_limit)
			     __field(u64, credit)),
	    TP_fast_assign(__assign_str(device);
			   __entry->fifo = fifo;
			   __entry->tx_limit = tx_limit;
			   __entry->credit = credit;),
	    TP_printk("%s fifo=%u tx_limit=%llu credit=%llu", __get_str(device), __entry->fifo,
		      __entry->tx_limit, __entry->credit)
);

/* Tasks, poll and epoll that wait for these events are woken. */
TRACE_EVENT(globalfifo_wake,
	    TP_PROTO(const struct device *dev, u16 fifo, u32 events),
	    TP_ARGS(dev, fifo, events),
	    TP_STRUCT__entry(__string(device, dev_name(dev))
			     __field(u16, fifo)
			     __field(u32, events)),
	    TP_fast_assign(__assign_str(device);
			   __entry->fifo = fifo;
			   __entry->events = events;),
	    TP_printk("%s fifo=%u events=%s", __get_str(device), __entry->fifo,
		      globalfifo_show_events(__entry->events))
);

/* A file was put on a list of those who asked for signals (O_ASYNC), or taken off. */
TRACE_EVENT(globalfifo_fasync,
	    TP_PROTO(const struct device *dev, u16 fifo, u32 on),
	    TP_ARGS(dev, fifo, on),
	    TP_STRUCT__entry(__string(device, dev_name(dev))
			     __field(u16, fifo)
			     __field(u32, on)),
	    TP_fast_assign(__assign_str(device);
			   __entry->fifo = fifo;
			   __entry->on = on;),
	    TP_printk("%s fifo=%u on=%u", __get_str(device), __entry->fifo, __entry->on)
);

/* The owners of so many files are signalled, by kill_fasync. */
TRACE_EVENT(globalfifo_signal,
	    TP_PROTO(const struct device *dev, u16 fifo, u32 band, u32 files),
	    TP_ARGS(dev, fifo, band, files),
	    TP_STRUCT__entry(__string(device, dev_name(dev))
			     __field(u16, fifo)
			     __field(u32, band)
			     __field(u32, files)),
	    TP_fast_assign(__assign_str(device);
			   __entry->fifo = fifo;
			   __entry->band = band;
			   __entry->files = files;),
	    TP_printk("%s fifo=%u band=%s files=%u", __get_str(device), __entry->fifo,
		      globalfifo_show_band(__entry->band), __entry->files)
);

TRACE_EVENT(globalfifo_request_queue,
	    TP_PROTO(const struct device *dev, u16 fifo, u64 id, u32 want),
	    TP_ARGS(dev, fifo, id, want),
	    TP_STRUCT__entry(__string(device, dev_name(dev))
			     __field(u16, fifo)
			     __field(u64, id)
			     __field(u32, want)),
	    TP_fast_assign(__assign_str(device);
			   __entry->fifo = fifo;
			   __entry->id = id;
			   __entry->want = want;),
	    TP_printk("%s fifo=%u id=%llu want=%s", __get_str(device), __entry->fifo,
		      __entry->id, globalfifo_show_want(__entry->want))
);

DECLARE_EVENT_CLASS(globalfifo_request_result,
		    TP_PROTO(const struct device *dev, u16 fifo, u64 id, s64 result),
		    TP_ARGS(dev, fifo, id, result),
		    TP_STRUCT__entry(__string(device, dev_name(dev))
				     __field(u16, fifo)
				     __field(u64, id)
				     __field(s64, result)),
		    TP_fast_assign(__assign_str(device);
				   __entry->fifo = fifo;
				   __entry->id = id;
				   __entry->result = result;),
		    TP_printk("%s fifo=%u id=%llu result=%lld", __get_str(device), __entry->fifo,
			      __entry->id, __entry->result)
);

/* Bytes copied, or a negative errno; a write is complete once they are accepted. */
DEFINE_EVENT(globalfifo_request_result, globalfifo_request_serve,
	     TP_PROTO(const struct device *dev, u16 fifo, u64 id, s64 result),
	     TP_ARGS(dev, fifo, id, result)
);

/* ki_complete is called with this. */
DEFINE_EVENT(globalfifo_request_result, globalfifo_request_complete,
	     TP_PROTO(const struct device *dev, u16 fifo, u64 id, s64 result),
	     TP_ARGS(dev, fifo, id, result)
);

/* By io_cancel or io_destroy, or the end of the process. */
TRACE_EVENT(globalfifo_request_cancel,
	    TP_PROTO(const struct device *dev, u16 fifo, u64 id),
	    TP_ARGS(dev, fifo, id),
	    TP_STRUCT__entry(__string(device, dev_name(dev))
			     __field(u16, fifo)
			     __field(u64, id)),
	    TP_fast_assign(__assign_str(device);
			   __entry->fifo = fifo;
			   __entry->id = id;),
	    TP_printk("%s fifo=%u id=%llu", __get_str(device), __entry->fifo, __entry->id)
);

DECLARE_EVENT_CLASS(globalfifo_life,
		    TP_PROTO(const struct device *dev, u16 fifo),
		    TP_ARGS(dev, fifo),
		    TP_STRUCT__entry(__string(device, dev_name(dev))
				     __field(u16, fifo)),
		    TP_fast_assign(__assign_str(device);
				   __entry->fifo = fifo;),
		    TP_printk("%s fifo=%u", __get_str(device), __entry->fifo)
);

/* The queues are gone for the time of a reset: suspend, hibernation, function reset. */
DEFINE_EVENT(globalfifo_life, globalfifo_suspend,
	     TP_PROTO(const struct device *dev, u16 fifo),
	     TP_ARGS(dev, fifo)
);

/* The queues are back. */
DEFINE_EVENT(globalfifo_life, globalfifo_resume,
	     TP_PROTO(const struct device *dev, u16 fifo),
	     TP_ARGS(dev, fifo)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace

/* This part must be outside protection */
#include <trace/define_trace.h>
