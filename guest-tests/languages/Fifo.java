// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

// A FIFO from Java: every read waits in a thread; there is nothing that polls. Ends with PASS, or an exception.
//
//     cargo lab run --install default-jdk-headless --mem 2G --share guest-tests/languages -- java Fifo.java

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.channels.AsynchronousFileChannel;
import java.nio.channels.ClosedByInterruptException;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;

public class Fifo {
	static final Path PATH = Path.of("/dev/globalfifo0");

	static void expect(String what, boolean holds) {
		if (!holds)
			throw new AssertionError(what);
		System.out.println(what);
	}

	// RandomAccessFile: read(2) and write(2) in the thread that calls.
	static void streams() throws Exception {
		try (var fifo = new RandomAccessFile(PATH.toFile(), "rw")) {
			var read = CompletableFuture.supplyAsync(() -> {
				try {
					byte[] buffer = new byte[100];
					int count = fifo.read(buffer);
					return new String(buffer, 0, count);
				} catch (IOException error) {
					throw new RuntimeException(error);
				}
			});
			fifo.write("to the thread".getBytes());
			expect("RandomAccessFile: read() waits in its thread", read.get().equals("to the thread"));
		}
	}

	// FileChannel: the same, and an interrupt ends the wait; it closes the channel.
	static void channels() throws Exception {
		var channel = FileChannel.open(PATH, StandardOpenOption.READ);
		var ended = new CompletableFuture<Boolean>();
		var reader = new Thread(() -> {
			try {
				channel.read(ByteBuffer.allocate(100));
				ended.complete(false);
			} catch (ClosedByInterruptException error) {
				ended.complete(true);
			} catch (IOException error) {
				ended.completeExceptionally(error);
			}
		});
		reader.start();
		while (reader.getState() != Thread.State.RUNNABLE)
			Thread.onSpinWait();
		reader.interrupt();
		expect("FileChannel: an interrupt ends a read and closes the channel", ended.get() && !channel.isOpen());
	}

	// AsynchronousFileChannel reads at a position, which a FIFO does not have.
	static void asynchronous() throws Exception {
		try (var channel = AsynchronousFileChannel.open(PATH, StandardOpenOption.READ)) {
			try {
				channel.read(ByteBuffer.allocate(100), 0).get();
				throw new AssertionError("a FIFO was read at a position");
			} catch (ExecutionException error) {
				expect("AsynchronousFileChannel: " + error.getCause().getMessage(), error.getCause() instanceof IOException);
			}
		}
	}

	public static void main(String[] words) throws Exception {
		streams();
		channels();
		asynchronous();
		System.out.println("PASS");
	}
}
