//! The pcap file format. Owns header and record layout, the streaming reader and the writer.
