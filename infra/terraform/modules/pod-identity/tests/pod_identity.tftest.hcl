# Each service account can do its work and nothing more; read from the policies themselves.

mock_provider "aws" {
  source          = "../../tests/mocks"
  override_during = plan
}

variables {
  name                 = "orders-test"
  account_id           = "111122223333"
  region               = "us-east-1"
  cluster_name         = "orders-test"
  cluster_arn          = "arn:aws:eks:us-east-1:111122223333:cluster/orders-test"
  vpc_arn              = "arn:aws:ec2:us-east-1:111122223333:vpc/vpc-0"
  database_resource_id = "cluster-DB"
  cache_arn            = "arn:aws:elasticache:us-east-1:111122223333:replicationgroup:orders-test"
  kafka_cluster_arn    = "arn:aws:kafka:us-east-1:111122223333:cluster/orders-test/uuid-1"
  secret_arns          = ["arn:aws:secretsmanager:us-east-1:111122223333:secret:orders/app-x"]
  data_kms_key_arn     = "arn:aws:kms:us-east-1:111122223333:key/00000000-0000-0000-0000-000000000000"
  certificate_arns     = ["arn:aws:acm:us-east-1:111122223333:certificate/c"]
  web_acl_arns         = ["arn:aws:wafv2:us-east-1:111122223333:regional/webacl/w/0"]
}

run "trust" {
  command = plan

  assert {
    condition     = alltrue([for role in values(aws_iam_role.this) : jsondecode(role.assume_role_policy).Statement[0].Principal.Service == "pods.eks.amazonaws.com" && toset(jsondecode(role.assume_role_policy).Statement[0].Action) == toset(["sts:AssumeRole", "sts:TagSession"])])
    error_message = "Pod Identity needs both actions"
  }

  assert {
    condition     = alltrue([for role in values(aws_iam_role.this) : jsondecode(role.assume_role_policy).Statement[0].Condition.ArnEquals["aws:SourceArn"] == "arn:aws:eks:us-east-1:111122223333:cluster/orders-test" && jsondecode(role.assume_role_policy).Statement[0].Condition.StringEquals["aws:SourceAccount"] == "111122223333"])
    error_message = "only this cluster hands the roles out"
  }

  assert {
    condition     = alltrue([for role in values(aws_iam_role.this) : role.permissions_boundary == "arn:aws:iam::aws:policy/PowerUserAccess"])
    error_message = "the pipeline can only make roles with the boundary"
  }

  assert {
    condition     = output.service_accounts["api"] == "orders/orders-api" && output.service_accounts["worker"] == "orders/orders-worker" && output.service_accounts["migrate"] == "orders/orders-migrate" && output.service_accounts["keda"] == "keda/keda-operator"
    error_message = "the chart's names"
  }

  assert {
    condition     = length(aws_eks_pod_identity_association.this) == 7
    error_message = "every role is associated"
  }
}

run "service" {
  command = plan

  assert {
    condition     = alltrue([for user in ["api", "worker", "migrate"] : contains(flatten([for statement in jsondecode(aws_iam_role_policy.this[user].policy).Statement : statement.Resource]), "arn:aws:rds-db:us-east-1:111122223333:dbuser:cluster-DB/orders_${user}")])
    error_message = "each logs in as its own database user"
  }

  assert {
    condition     = length([for resource in flatten([for statement in jsondecode(aws_iam_role_policy.this["api"].policy).Statement : statement.Resource]) : resource if strcontains(resource, ":dbuser:")]) == 1
    error_message = "and as no other"
  }

  assert {
    condition     = !contains(flatten([for statement in jsondecode(aws_iam_role_policy.this["api"].policy).Statement : statement.Action]), "kafka-cluster:WriteData") && !contains(flatten([for statement in jsondecode(aws_iam_role_policy.this["api"].policy).Statement : statement.Action]), "kafka-cluster:ReadData")
    error_message = "the API goes through the outbox"
  }

  assert {
    condition     = contains(flatten([for statement in jsondecode(aws_iam_role_policy.this["worker"].policy).Statement : statement.Action]), "kafka-cluster:WriteDataIdempotently")
    error_message = "idempotent producers need it"
  }

  assert {
    condition     = contains(flatten([for statement in jsondecode(aws_iam_role_policy.this["worker"].policy).Statement : statement.Resource]), "arn:aws:kafka:us-east-1:111122223333:topic/orders-test/uuid-1/orders.events.v1") && contains(flatten([for statement in jsondecode(aws_iam_role_policy.this["worker"].policy).Statement : statement.Resource]), "arn:aws:kafka:us-east-1:111122223333:topic/orders-test/uuid-1/orders.events.v1.payments.dlt")
    error_message = "topics by name"
  }

  assert {
    condition     = contains(flatten([for statement in jsondecode(aws_iam_role_policy.this["worker"].policy).Statement : statement.Resource]), "arn:aws:kafka:us-east-1:111122223333:group/orders-test/uuid-1/payments") && contains(flatten([for statement in jsondecode(aws_iam_role_policy.this["worker"].policy).Statement : statement.Resource]), "arn:aws:kafka:us-east-1:111122223333:group/orders-test/uuid-1/payments.retry")
    error_message = "groups by name, each with its retry group"
  }

  assert {
    condition     = !contains(flatten([for statement in jsondecode(aws_iam_role_policy.this["worker"].policy).Statement : statement.Action]), "kafka-cluster:CreateTopic") && contains(flatten([for statement in jsondecode(aws_iam_role_policy.this["migrate"].policy).Statement : statement.Action]), "kafka-cluster:CreateTopic")
    error_message = "only `topics apply` makes topics"
  }

  assert {
    condition     = alltrue([for role in ["api", "worker", "migrate"] : !contains(flatten([for statement in jsondecode(aws_iam_role_policy.this[role].policy).Statement : statement.Resource]), "*")])
    error_message = "no wildcard resource for the service"
  }

  assert {
    condition     = alltrue([for policy in values(aws_iam_role_policy.this) : alltrue([for action in flatten([for statement in jsondecode(policy.policy).Statement : statement.Action]) : !strcontains(action, "*")])])
    error_message = "no wildcard action anywhere"
  }
}

run "platform" {
  command = plan

  assert {
    condition     = toset(flatten([for statement in jsondecode(aws_iam_role_policy.this["keda"].policy).Statement : statement.Action])) == toset(["kafka-cluster:Connect", "kafka-cluster:DescribeTopic", "kafka-cluster:DescribeGroup"])
    error_message = "KEDA looks at lag, no more"
  }

  assert {
    condition     = toset(flatten([for statement in jsondecode(aws_iam_role_policy.this["external-secrets"].policy).Statement : statement.Action])) == toset(["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret", "kms:Decrypt"])
    error_message = "External Secrets reads"
  }

  assert {
    condition     = jsondecode(aws_iam_role_policy.this["external-secrets"].policy).Statement[1].Condition.StringEquals["kms:ViaService"] == "secretsmanager.us-east-1.amazonaws.com"
    error_message = "the key opens secrets only"
  }

  assert {
    condition     = alltrue([for statement in jsondecode(aws_iam_role_policy.this["load-balancer-controller"].policy).Statement : statement.Sid == "Look" || statement.Resource != "*"])
    error_message = "the controller changes only named resources"
  }

  assert {
    condition     = alltrue([for statement in jsondecode(aws_iam_role_policy.this["load-balancer-controller"].policy).Statement : can(statement.Condition) if contains(["ChangeWhatIsOurs", "ChangeOurSecurityGroups", "MakeWithTheClusterTag"], statement.Sid)])
    error_message = "and only what carries the cluster's tag"
  }
}

run "refuses_a_kafka_topic_arn" {
  command = plan

  variables {
    kafka_cluster_arn = "arn:aws:kafka:us-east-1:111122223333:topic/orders-test/uuid-1/t"
  }

  expect_failures = [var.kafka_cluster_arn]
}
