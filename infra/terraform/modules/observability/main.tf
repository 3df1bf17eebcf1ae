# Alarms for what Prometheus cannot see, and for what has to be heard while Prometheus itself is away.
# Tests: tests/observability.tftest.hcl. The alert topic is made in the module alerts-first order: see README.

locals {
  database = { DBClusterIdentifier = var.database_cluster_id }
  kafka    = { "Cluster Name" = var.kafka_cluster_name }
  firewall = { WebACL = var.web_acl_name, Region = var.region, Rule = "ALL" }

  # `treat_missing`: a metric that is only sent when something happens is fine when missing; a heartbeat is not.
  fixed_alarms = {
    aurora-cpu = {
      description = "Aurora CPU above 80 % for 15 minutes: raise max_acu or find the statement in Performance Insights."
      namespace   = "AWS/RDS", metric = "CPUUtilization", dimensions = local.database, statistic = "Average"
      operator    = "GreaterThanThreshold", threshold = 80, period_s = 300, periods = 3, missing = "breaching"
    }
    aurora-acu = {
      description = "Aurora at more than 90 % of its highest capacity for 15 minutes: raise max_acu."
      namespace   = "AWS/RDS", metric = "ACUUtilization", dimensions = local.database, statistic = "Average"
      operator    = "GreaterThanThreshold", threshold = 90, period_s = 300, periods = 3, missing = "breaching"
    }
    aurora-local-storage = {
      description = "Less than 2 GiB of local storage: large sorts and temporary tables will fail."
      namespace   = "AWS/RDS", metric = "FreeLocalStorage", dimensions = local.database, statistic = "Minimum"
      operator    = "LessThanThreshold", threshold = 2147483648, period_s = 300, periods = 2, missing = "notBreaching"
    }
    aurora-replica-lag = {
      description = "A reader is more than 2 s behind: it would not take over cleanly."
      namespace   = "AWS/RDS", metric = "AuroraReplicaLagMaximum", dimensions = local.database, statistic = "Maximum"
      operator    = "GreaterThanThreshold", threshold = 2000, period_s = 60, periods = 5, missing = "notBreaching"
    }
    kafka-disk = {
      description = "A broker's disk is more than 80 % full although storage grows by itself: the growth limit or its six-hour pause was hit."
      namespace   = "AWS/Kafka", metric = "KafkaDataLogsDiskUsed", dimensions = local.kafka, statistic = "Maximum"
      operator    = "GreaterThanThreshold", threshold = 80, period_s = 300, periods = 2, missing = "breaching"
    }
    kafka-offline-partitions = {
      description = "Partitions without a leader: the relay cannot publish them, the outbox grows."
      namespace   = "AWS/Kafka", metric = "OfflinePartitionsCount", dimensions = local.kafka, statistic = "Maximum"
      operator    = "GreaterThanThreshold", threshold = 0, period_s = 60, periods = 3, missing = "breaching"
    }
    waf-blocks = {
      description = "More than 5,000 requests blocked in five minutes: an attack, or a rule that blocks customers."
      namespace   = "AWS/WAFV2", metric = "BlockedRequests", dimensions = local.firewall, statistic = "Sum"
      operator    = "GreaterThanThreshold", threshold = 5000, period_s = 300, periods = 1, missing = "notBreaching"
    }
  }

  cache_alarms = merge([
    for node in var.cache_nodes : {
      "valkey-evictions-${node}" = {
        description = "Valkey drops keys before they expire: the cache is too small."
        namespace   = "AWS/ElastiCache", metric = "Evictions", dimensions = { CacheClusterId = node }, statistic = "Sum"
        operator    = "GreaterThanThreshold", threshold = 100, period_s = 300, periods = 3, missing = "notBreaching"
      }
      "valkey-cpu-${node}" = {
        description = "Valkey's one thread is above 80 %: a larger node, or fewer commands."
        namespace   = "AWS/ElastiCache", metric = "EngineCPUUtilization", dimensions = { CacheClusterId = node }, statistic = "Average"
        operator    = "GreaterThanThreshold", threshold = 80, period_s = 300, periods = 3, missing = "breaching"
      }
    }
  ]...)

  nat_alarms = {
    for key, id in var.nat_gateway_ids : "nat-ports-${key}" => {
      description = "NAT gateway ${key} ran out of ports: new outgoing connections to one address fail."
      namespace   = "AWS/NATGateway", metric = "ErrorPortAllocation", dimensions = { NatGatewayId = id }, statistic = "Sum"
      operator    = "GreaterThanThreshold", threshold = 0, period_s = 60, periods = 3, missing = "notBreaching"
    }
  }

  load_balancer_alarms = {
    for suffix in var.load_balancer_arn_suffix == null ? [] : [var.load_balancer_arn_suffix] : "alb-5xx" => {
      description = "The load balancer itself answered more than 20 errors in five minutes: no healthy target, or targets closed connections."
      namespace   = "AWS/ApplicationELB", metric = "HTTPCode_ELB_5XX_Count", dimensions = { LoadBalancer = suffix }, statistic = "Sum"
      operator    = "GreaterThanThreshold", threshold = 20, period_s = 300, periods = 1, missing = "notBreaching"
    }
  }

  alarms = merge(local.fixed_alarms, local.cache_alarms, local.nat_alarms, local.load_balancer_alarms)
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  comparison_operator = each.value.operator
  threshold           = each.value.threshold
  period              = each.value.period_s
  evaluation_periods  = each.value.periods
  treat_missing_data  = each.value.missing
  alarm_actions       = [var.alerts_topic_arn]
  ok_actions          = [var.alerts_topic_arn]
}
