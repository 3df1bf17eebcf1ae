# What the service's own pods may do: log in to the database as their one user, reach named topics and groups.
# The API never talks to Kafka's topics: it writes to the outbox. It may look at lag for /admin/overview.

locals {
  region_account = "${var.region}:${var.account_id}"
  topic_prefix   = replace(var.kafka_cluster_arn, ":cluster/", ":topic/")
  group_prefix   = replace(var.kafka_cluster_arn, ":cluster/", ":group/")

  topic_arns = [for topic in var.topics : "${local.topic_prefix}/${topic}"]
  # Retries are read by a group of their own, `<group>.retry`, so that they never hold up the main topic.
  group_arns = flatten([for group in var.consumer_groups : ["${local.group_prefix}/${group}", "${local.group_prefix}/${group}.retry"]])
  # `<topic>.<group>.retry.<n>` and `<topic>.<group>.dlt`.
  detour_arns = flatten([
    for topic in var.topics : [
      for group in var.consumer_groups : ["${local.topic_prefix}/${topic}.${group}.retry.*", "${local.topic_prefix}/${topic}.${group}.dlt"]
    ]
  ])

  connect_kafka = { Effect = "Allow", Action = ["kafka-cluster:Connect"], Resource = [var.kafka_cluster_arn] }

  log_in_as = {
    for user in ["api", "worker", "migrate"] : user => {
      Effect   = "Allow"
      Action   = ["rds-db:connect"]
      Resource = ["arn:aws:rds-db:${local.region_account}:dbuser:${var.database_resource_id}/orders_${user}"]
    }
  }

  use_cache_as = {
    for user in ["api", "worker"] : user => {
      Effect   = "Allow"
      Action   = ["elasticache:Connect"]
      Resource = [var.cache_arn, "arn:aws:elasticache:${local.region_account}:user:${var.name}-${user}"]
    }
  }

  api_statements = [
    local.log_in_as.api,
    local.use_cache_as.api,
    local.connect_kafka,
    { Effect = "Allow", Action = ["kafka-cluster:DescribeTopic"], Resource = concat(local.topic_arns, local.detour_arns) },
    { Effect = "Allow", Action = ["kafka-cluster:DescribeGroup"], Resource = local.group_arns },
  ]

  # Workers, relay and reaper share one account: they read, write and replay the same topics.
  worker_statements = [
    local.log_in_as.worker,
    local.use_cache_as.worker,
    {
      Effect = "Allow"
      # WriteDataIdempotently is asked for by every producer with enable.idempotence.
      Action   = ["kafka-cluster:Connect", "kafka-cluster:WriteDataIdempotently"]
      Resource = [var.kafka_cluster_arn]
    },
    {
      Effect   = "Allow"
      Action   = ["kafka-cluster:DescribeTopic", "kafka-cluster:ReadData", "kafka-cluster:WriteData"]
      Resource = concat(local.topic_arns, local.detour_arns)
    },
    { Effect = "Allow", Action = ["kafka-cluster:DescribeGroup", "kafka-cluster:AlterGroup"], Resource = local.group_arns },
  ]

  # Runs `migrate` and `topics apply`; nothing else may change a schema or make a topic.
  migrate_statements = [
    local.log_in_as.migrate,
    local.connect_kafka,
    {
      Effect   = "Allow"
      Action   = ["kafka-cluster:CreateTopic", "kafka-cluster:DescribeTopic", "kafka-cluster:AlterTopic", "kafka-cluster:DescribeTopicDynamicConfiguration", "kafka-cluster:AlterTopicDynamicConfiguration"]
      Resource = concat(local.topic_arns, local.detour_arns)
    },
  ]
}
