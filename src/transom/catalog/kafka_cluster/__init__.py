"""KafkaCluster: a cluster of Apache Kafka that a tenant's services use; it is named here, not run."""
