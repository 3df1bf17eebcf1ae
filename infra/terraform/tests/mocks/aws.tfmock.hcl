# What the fake provider answers for computed values that other resources check (ARNs, ids). One file for all tests.

mock_resource "aws_kms_key" {
  defaults = {
    arn    = "arn:aws:kms:us-east-1:111122223333:key/00000000-0000-0000-0000-000000000000"
    key_id = "00000000-0000-0000-0000-000000000000"
  }
}

mock_resource "aws_kms_alias" {
  defaults = { arn = "arn:aws:kms:us-east-1:111122223333:alias/mock" }
}

mock_resource "aws_iam_role" {
  defaults = { arn = "arn:aws:iam::111122223333:role/mock", id = "mock" }
}

mock_resource "aws_iam_openid_connect_provider" {
  defaults = { arn = "arn:aws:iam::111122223333:oidc-provider/token.actions.githubusercontent.com" }
}

mock_resource "aws_cloudwatch_log_group" {
  defaults = { arn = "arn:aws:logs:us-east-1:111122223333:log-group:mock" }
}

mock_resource "aws_sns_topic" {
  defaults = { arn = "arn:aws:sns:us-east-1:111122223333:mock" }
}

mock_resource "aws_sqs_queue" {
  defaults = { arn = "arn:aws:sqs:us-east-1:111122223333:mock", url = "https://sqs.us-east-1.amazonaws.com/111122223333/mock" }
}

mock_resource "aws_vpc" {
  defaults = { id = "vpc-0", arn = "arn:aws:ec2:us-east-1:111122223333:vpc/vpc-0", default_network_acl_id = "acl-0" }
}

mock_resource "aws_security_group" {
  defaults = { id = "sg-0" }
}

mock_resource "aws_eks_cluster" {
  defaults = { arn = "arn:aws:eks:us-east-1:111122223333:cluster/mock", endpoint = "https://mock.eks.amazonaws.com" }
}

mock_resource "aws_launch_template" {
  defaults = { id = "lt-0", latest_version = 1 }
}

mock_resource "aws_rds_cluster" {
  defaults = { id = "mock", arn = "arn:aws:rds:us-east-1:111122223333:cluster:mock", cluster_resource_id = "cluster-MOCK" }
}

mock_resource "aws_elasticache_replication_group" {
  defaults = { arn = "arn:aws:elasticache:us-east-1:111122223333:replicationgroup:mock" }
}

mock_resource "aws_msk_configuration" {
  defaults = { arn = "arn:aws:kafka:us-east-1:111122223333:configuration/mock/0", latest_revision = 1 }
}

mock_resource "aws_msk_cluster" {
  defaults = { arn = "arn:aws:kafka:us-east-1:111122223333:cluster/mock/00000000-1" }
}

mock_resource "aws_ecr_repository" {
  defaults = { arn = "arn:aws:ecr:us-east-1:111122223333:repository/plumbline" }
}

mock_resource "aws_secretsmanager_secret" {
  defaults = { arn = "arn:aws:secretsmanager:us-east-1:111122223333:secret:mock" }
}

mock_resource "aws_acm_certificate" {
  defaults = { arn = "arn:aws:acm:us-east-1:111122223333:certificate/mock" }
}

mock_resource "aws_wafv2_web_acl" {
  defaults = { arn = "arn:aws:wafv2:us-east-1:111122223333:regional/webacl/mock/0" }
}

mock_resource "aws_s3_bucket" {
  defaults = { id = "mock", arn = "arn:aws:s3:::mock" }
}

mock_resource "aws_lambda_function" {
  defaults = { arn = "arn:aws:lambda:us-east-1:111122223333:function:mock" }
}

mock_resource "aws_lambda_code_signing_config" {
  defaults = { arn = "arn:aws:lambda:us-east-1:111122223333:code-signing-config:csc-0" }
}
